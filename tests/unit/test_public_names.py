"""What ``import fewbits`` offers, and what it does not drag in."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fewbits


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_names_are_sorted_and_the_same_for_readers_and_at_run_time() -> None:
    tree = ast.parse(Path(fewbits.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    static = {name.name: node.module for node in block.body for name in node.names}
    assert fewbits.__all__ == sorted(fewbits.__all__)
    assert fewbits.__all__ == sorted(static)
    assert {name: f"fewbits.{home}" for name, home in fewbits._HOMES.items()} == static


def test_every_name_is_there() -> None:
    for name in fewbits.__all__:
        assert inspect.isclass(getattr(fewbits, name)) or inspect.isfunction(getattr(fewbits, name)), name
    assert set(fewbits.__all__) <= set(dir(fewbits))
    namespace: dict[str, object] = {}
    exec("from fewbits import *", namespace)
    assert set(fewbits.__all__) <= set(namespace)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fewbits' has no attribute 'compres'"):
        fewbits.compres  # noqa: B018


def test_no_submodule_has_a_public_name() -> None:
    """Importing such a module would put it in the place of the function."""
    assert not {module.name for module in pkgutil.iter_modules(fewbits.__path__)} & set(fewbits.__all__)


def test_compress_is_the_function_in_every_order_of_imports() -> None:
    python("""
import importlib, sys
for first in ("fewbits", "fewbits.pipeline", "fewbits.cli", "fewbits.job", "fewbits.train", "fewbits.report"):
    for name in [name for name in sys.modules if name.split(".")[0] == "fewbits"]:
        del sys.modules[name]
    importlib.import_module(first)
    import fewbits
    from fewbits import compress
    assert callable(fewbits.compress) and fewbits.compress is compress, first
    import fewbits.job, fewbits.pipeline
    assert fewbits.compress is compress is fewbits.pipeline.compress, first
""")


def test_importing_goes_to_no_network_and_leaves_the_extras_alone() -> None:
    loaded = python("""
import sys
online = []
sys.addaudithook(lambda event, args: online.append(event) if event.startswith(("socket.", "urllib.")) else None)
import fewbits
assert "torch" not in sys.modules and "numpy" not in sys.modules
for name in fewbits.__all__:
    getattr(fewbits, name)
online = [event for event in online if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request")]
assert not online, online
print(*{name.split(".")[0] for name in sys.modules})
""").split()
    assert "torch" in loaded
    assert not {"matplotlib", "sklearn", "PIL", "captum", "zennit", "gymnasium", "stable_baselines3", "optuna"} & set(
        loaded
    )


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["compress"], ["recipes"], ["compress", "no.yaml"]])
def test_help_and_complaints_do_not_wait_for_torch(args: list[str]) -> None:
    python(f"""
import sys
sys.argv[1:] = {args!r}
from fewbits.cli import main
try:
    main()
except SystemExit:
    pass
assert "torch" not in sys.modules
""")
