"""fewbits: trained neural networks as small as they can be, in a file that decodes out.

::

    import fewbits as fb

    small = fb.compress(model, train, evaluate=validation, target="200 KB")
    print(small.report)
    small.save("net.few")
    net = fb.load("net.few", like=Net())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewbits.codec import decode, encode
    from fewbits.deploy.onnx import from_onnx
    from fewbits.errors import FewbitsError
    from fewbits.multitask import family
    from fewbits.pipeline import (
        Compressed,
        compress,
        compressing,
        cost,
        explain,
        export,
        inspect,
        load,
        train,
        verify,
    )
    from fewbits.plan import Clustered, Dense, Masked, Plan
    from fewbits.recipe import Recipe
    from fewbits.report.report import Report
    from fewbits.task import Task

# Loaded at first use, so that the command line can help and complain without waiting for torch. No submodule may
# have one of these names: importing it would put the module in the function's place. The room ``train`` may, as it can
# be called.
_HOMES = {
    "Clustered": "plan",
    "Compressed": "pipeline",
    "Dense": "plan",
    "FewbitsError": "errors",
    "Masked": "plan",
    "Plan": "plan",
    "Recipe": "recipe",
    "Report": "report.report",
    "Task": "task",
    "compress": "pipeline",
    "compressing": "pipeline",
    "cost": "pipeline",
    "decode": "codec",
    "encode": "codec",
    "explain": "pipeline",
    "export": "pipeline",
    "family": "multitask",
    "from_onnx": "deploy.onnx",
    "inspect": "pipeline",
    "load": "pipeline",
    "train": "pipeline",
    "verify": "pipeline",
}

__all__ = [
    "Clustered",
    "Compressed",
    "Dense",
    "FewbitsError",
    "Masked",
    "Plan",
    "Recipe",
    "Report",
    "Task",
    "compress",
    "compressing",
    "cost",
    "decode",
    "encode",
    "explain",
    "export",
    "family",
    "from_onnx",
    "inspect",
    "load",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return globals().setdefault(name, value)  # a room of that name is there by now, and stays


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
