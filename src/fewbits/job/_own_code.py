"""Code of one's own by its name, ``mine.py:Net`` or ``package.module:function``: it is imported, and so run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from fewbits.errors import RecipeError, did_you_mean

_OURS = Path(__file__).parents[1]
_LIBRARIES = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "purelib", "platlib")]
_LONGEST = 400  # characters of somebody else's error
_loaded: dict[str, tuple[bytes, ModuleType]] = {}


def found(name: str, *, seed: int) -> Any:
    """What is called so, in a file or in a module that can be imported from the working folder.

    Args:
        seed: of what is drawn while it is imported.

    Raises:
        RecipeError: no such file, module or name; or it cannot be imported, and the message says in which line.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        place, attribute = name, ""
    with seeded(seed):
        module = _file(Path(place)) if place.endswith(".py") else _module(place)
    value: Any = module
    for part in attribute.split("."):
        names = _names(value)
        if not part or not hasattr(value, part):
            listed = ", ".join(names) or "nothing of its own"
            what = f"{place} has no {attribute!r}" if part else f"{name}: say what of it is meant"
            example = "" if part or not names else f", for example {place}:{names[0]}"
            raise RecipeError(f"{what}{example}{did_you_mean(part, names)} (it has: {listed})")
        value = getattr(value, part)
    return value


def called(name: str, function: Callable[..., Any], options: Mapping[str, Any], *, section: str, seed: int) -> Any:
    """What a function of one's own returns, with random numbers that follow from a seed.

    Args:
        section: of the recipe, that the options come from.

    Raises:
        RecipeError: an option that it does not have or lacks, or it fails; the message says in which line.
    """
    _check_options(name, function, options, section)
    try:
        with seeded(seed):
            return function(**options)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{name} failed: {blame(error)}") from error


def blame(error: BaseException) -> str:
    """An error in one line, with the line of the user's code that it comes from."""
    words = " ".join(str(error).split())
    words = f"{words[:_LONGEST]} ..." if len(words) > _LONGEST else words
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    return f"{shown(own[-1].filename)}, line {own[-1].lineno}: {said}" if own else said


def shown(path: str | Path) -> str:
    """A path as its user would write it."""
    there, here = Path(path), Path.cwd()
    return str(there.relative_to(here) if there.is_relative_to(here) else there)


def _is_own(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    return not any(path.is_relative_to(folder) for folder in (_OURS, *_LIBRARIES))


def _names(value: Any) -> list[str]:
    """What may be meant: classes, functions and networks that are defined there."""
    home = getattr(value, "__name__", None)
    return [
        name
        for name, part in vars(value).items()
        if not name.startswith("_")
        and (isinstance(part, torch.nn.Module) or (callable(part) and getattr(part, "__module__", None) == home))
    ]


def _file(path: Path) -> ModuleType:
    """The module of a file, imported once, and again if the file has changed. Modules beside it can be imported."""
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise RecipeError(f"there is no file {path} (from {Path.cwd()}){did_you_mean(path.name, there)}")
    place, source = str(path.resolve()), path.read_bytes()
    if place in _loaded and _loaded[place][0] == source:
        return _loaded[place][1]
    _importable(str(path.resolve().parent))
    name = path.stem
    if getattr(sys.modules.get(name), "__file__", place) != place:  # another module's
        name = f"{name}_{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as dataclasses and workers of loaders look it up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if not isinstance(error, Exception | SystemExit):
            raise
        raise RecipeError(f"{path} cannot be imported: {blame(error)}") from error
    _loaded[place] = source, module
    return module


def _module(place: str) -> ModuleType:
    _importable(str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise RecipeError(f"{place} cannot be imported: {blame(error)}") from error
        hint = did_you_mean(place, ["torchvision", "timm", "transformers"])
        raise RecipeError(
            f"there is no module {place!r}, neither in {Path.cwd()} nor installed; a file is written mine.py:Net{hint}"
        ) from None
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{place} cannot be imported: {blame(error)}") from error


def _importable(folder: str) -> None:
    """What lies in a folder goes first, as for ``python mine.py``."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any], section: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled
        return
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in named]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in known:
                listed = ", ".join(known) or "none"
                raise RecipeError(f"{name} has no option {option!r}{did_you_mean(option, known)} (it has: {listed})")
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise RecipeError(f"{name} needs a value for {parameter.name!r}: add {section}.options.{parameter.name}")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of Python, NumPy and PyTorch that follow from a seed; afterwards they go on as before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
