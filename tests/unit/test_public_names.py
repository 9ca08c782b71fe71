"""What ``import fewbits`` offers, and what it does not drag in."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fewbits

PACKAGES = ["fewbits", *(m.name for m in pkgutil.walk_packages(fewbits.__path__, "fewbits.") if m.ispkg)]
ROOMS = [name for name in PACKAGES if hasattr(import_module(name), "__all__")]


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
        found = getattr(fewbits, name)
        assert inspect.isclass(found) or inspect.isfunction(found) or name == "train", name
    assert set(fewbits.__all__) <= set(dir(fewbits))
    namespace: dict[str, object] = {}
    exec("from fewbits import *", namespace)
    assert set(fewbits.__all__) <= set(namespace)


def order(name: str) -> tuple[int, list[str | int]]:
    """Constants, then classes, then functions; numbers in a name count as numbers."""
    parts = re.split(r"(\d+)", name)
    return 0 if name.isupper() else 1 if name[0].isupper() else 2, [int(p) if p.isdigit() else p for p in parts]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_offers_what_it_imports_from_its_own_modules_in_order(room: str) -> None:
    module = import_module(room)
    imports = [n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ImportFrom) and n.module]
    own = {alias.asname or alias.name for node in imports for alias in node.names if node.module.startswith("fewbits")}
    assert module.__all__ == sorted(module.__all__, key=order)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert own <= set(module.__all__)
    assert not [name for name in module.__all__ if name.startswith("_")]


def test_a_package_without_public_names_has_nothing_in_it() -> None:
    for name in set(PACKAGES) - set(ROOMS):
        (only,) = ast.parse(inspect.getsource(import_module(name))).body
        assert isinstance(only, ast.Expr), "its docstring"


def signatures(thing: Any) -> Iterator[tuple[str, ModuleType]]:
    """Annotations of a function, or of a class, its fields and its public methods; and where their names are known."""
    inner = [vars(thing)[n] for n in vars(thing) if n == "__init__" or n[0] != "_"] if inspect.isclass(thing) else []
    inner = [part.fget if isinstance(part, property) else getattr(part, "__func__", part) for part in inner]
    for part in (thing, *filter(inspect.isfunction, inner)):
        for name, annotation in getattr(part, "__annotations__", {}).items():
            if isinstance(annotation, str) and not name.startswith("_"):
                yield annotation, import_module(part.__module__)


@pytest.mark.parametrize("room", ROOMS)
def test_what_public_names_take_and_give_is_public(room: str) -> None:
    """Its class is offered by a room, or stands in a module of the package's own, like ``fewbits.plan``."""
    offered = [getattr(import_module(r), n) for r in ROOMS for n in import_module(r).__all__]
    offered += [
        value
        for found in pkgutil.iter_modules(fewbits.__path__, "fewbits.")
        if not found.ispkg and found.name != "fewbits.__main__"
        for name, value in vars(import_module(found.name)).items()
        if name[0] != "_"
    ]
    public = {value for value in offered if inspect.isclass(value)}
    hidden = set()
    for name in import_module(room).__all__:
        for annotation, place in signatures(getattr(import_module(room), name)):
            for word in re.findall(r"[A-Za-z_][\w.]*", annotation):
                first, *rest = word.split(".")
                value = vars(place).get(first)
                for attribute in rest:
                    value = getattr(value, attribute, None)
                if inspect.isclass(value) and value.__module__.startswith("fewbits") and value not in public:
                    hidden.add(f"{name}: {value.__module__}.{value.__qualname__}")
    assert not hidden


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fewbits' has no attribute 'compres'"):
        fewbits.compres  # noqa: B018


def test_no_submodule_has_a_public_name() -> None:
    """Importing such a module would put it in the place of the function; one can be called in its place."""
    assert {module.name for module in pkgutil.iter_modules(fewbits.__path__)} & set(fewbits.__all__) == {"train"}


@pytest.mark.long
def test_verbs_and_rooms_of_one_name_are_what_they_are_in_every_order_of_imports() -> None:
    """``train`` is a room and a verb; ``compress`` is a function, though a module of that name holds it."""
    python("""
import importlib, sys
for first in ("fewbits", "fewbits.pipeline", "fewbits.cli", "fewbits.job", "fewbits.train"):
    for name in [name for name in sys.modules if name.split(".")[0] == "fewbits"]:
        del sys.modules[name]
    importlib.import_module(first)
    import fewbits
    try:
        fewbits.train()
    except TypeError as error:
        assert "'model'" in str(error), error
    import fewbits.train as room
    assert room is fewbits.train and callable(room.fit), first
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
