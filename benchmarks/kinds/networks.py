"""Each network of the list by each method: whether it works, or is refused in a sentence."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fewbits as fb
from benchmarks.kinds.relevance import unsettled
from benchmarks.networks import Network, network
from benchmarks.unit import Place, Row, Unit
from fewbits.errors import FewbitsError
from fewbits.measure.relevance import relevance
from fewbits.task import Task, main_output

COMMON = {"train": None, "rounds": 1, "coding": "fast"}
RECIPES: dict[str, dict[str, Any]] = {
    "ecq": COMMON | {"assign": {"method": "ecq", "bits": 4, "lam": 0.05}},
    "ecqx": COMMON | {"assign": {"method": "ecqx", "bits": 4, "lam": 0.05}, "measure": {"batches": 1}},
    "pruning": COMMON | {"assign": {"method": "none"}, "prune": {"sparsity": 0.5}},
    "channels": COMMON
    | {
        "assign": {"method": "none"},
        "channels": {"parameters": 0.8, "criterion": "magnitude", "measured": False, "train": None},
    },
    "int8": COMMON | {"assign": {"method": "int8"}, "activations": {"calibrate": 1}},
}
SAMPLES = 4
OUTCOMES = ("works", "refused", "broken")


def measure(unit: Unit, place: Place) -> list[Row]:
    """The row of a network by a method; ``outcome`` is ``works``, ``refused`` or ``broken``.

    Works: the file was written, and the decoded network's outputs and tensors are equal to the compressed one's.
    """
    torch.set_num_threads(1)
    chosen, method = network(unit.labels["model"]), unit.labels["method"]
    found = outcome(chosen, method)
    flags = {word: int(found["outcome"] == word) for word in OUTCOMES}
    return [{"library": chosen.library, "method": method, "model": chosen.label} | flags | found]


def outcome(chosen: Network, method: str) -> Row:
    """What became of one network."""
    try:
        return {"outcome": "works"} | TRIED[method](chosen, unsettled(chosen.build()))
    except FewbitsError as error:
        return {"outcome": "refused", "error": f"{type(error).__name__}: {error}".partition(" (made at")[0]}
    except Exception as error:  # what no user should see
        return {"outcome": "broken", "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def task() -> Task:
    """Nothing about the outputs but that they are small numbers."""
    return Task(loss=lambda outputs, targets: outputs.float().square().mean(), outputs=main_output)


def batches(chosen: Network) -> list[tuple[Any, Tensor]]:
    """One batch, as a user's loader gives it."""
    inputs = chosen.inputs(SAMPLES)
    return [(inputs.get("", inputs), torch.zeros(SAMPLES))]


def compressed(method: str) -> Callable[[Network, nn.Module], Row]:
    """By a recipe, from the call to the file that decodes."""

    def tried(chosen: Network, model: nn.Module) -> Row:
        small = fb.compress(model, batches(chosen), task=task(), recipe=RECIPES[method])
        report = small.report
        if not report.identical:
            return {"outcome": "broken", "error": "the decoded network's outputs differ"}
        with tempfile.TemporaryDirectory() as folder:
            small.save(Path(folder) / "net.few")
            fb.load(Path(folder) / "net.few", like=chosen.build(seed=5))
        return {"bytes": report.file_bytes, "float_bytes": report.float_bytes, "ratio": report.ratio}

    return tried


def explained(chosen: Network, model: nn.Module) -> Row:
    """Relevance of every weight."""
    found = relevance(model, batches(chosen), rules="epsilon", task=task())
    without = sum(not bool(scores.any()) for scores in found.weights.values())
    return (
        {"outcome": "works"} if not without else {"outcome": "broken", "error": f"{without} weights without relevance"}
    )


def exported(chosen: Network, model: nn.Module) -> Row:
    """As ONNX, which ONNX Runtime computes the same with."""
    from fewbits.deploy.onnx import to_onnx

    inputs = batches(chosen)[0][0]
    with tempfile.TemporaryDirectory() as folder:
        return {"bytes": to_onnx(model, inputs, Path(folder) / "net.onnx").bytes}


TRIED: dict[str, Callable[[Network, nn.Module], Row]] = {
    **{name: compressed(name) for name in RECIPES},
    "explain": explained,
    "onnx": exported,
}
