"""A data set by its name, as recipes write it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from fewbits.data._activity import activity
from fewbits.data._cifar import cifar10, cifar100
from fewbits.data._idx import fashion_mnist, mnist
from fewbits.data._speech import speech_commands
from fewbits.data.dataset import DataSet
from fewbits.data.digits import digits
from fewbits.errors import RecipeError, did_you_mean

_LOADERS: dict[str, Callable[..., DataSet]] = {
    "activity": activity,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "speech-commands": speech_commands,
}

NAMES = tuple(_LOADERS)

# These two have files of the same names, so one must never be taken for the other in a common folder.
_ALIKE = ("fashion-mnist", "mnist")


def load(name: str, folder: str | PathLike[str] | None = None, **options: object) -> DataSet:
    """A data set from local files; nothing is downloaded.

    Args:
        name: one of :data:`NAMES`.
        folder: with the files, or with a folder ``name`` of them, or one file. ``None`` means
            :func:`home`, or the folder ``name`` in it. Unused for digits.
        options: of the data set's own function, such as ``layout="10x49"``.

    Raises:
        RecipeError: an unknown data set or option.
        DataError: the files are missing or damaged; the message says what was looked for and how to get it.
    """
    check_name(name)
    loader = _LOADERS[name]
    valid = [option for option in inspect.signature(loader).parameters if option != "folder"]
    for option in options:
        if option not in valid:
            known = ", ".join(valid) or "none"
            raise RecipeError(f"{name} has no option {option!r}{did_you_mean(option, valid)} (it has: {known})")
    if name == "digits":
        return loader(**options)
    root = home() if folder is None else Path(folder)
    own = root / name
    if own.exists() or (folder is None and name in _ALIKE):
        return loader(own, **options)
    return loader(root, **options)


def home() -> Path:
    """Where data sets lie unless told otherwise: ``FEWBITS_DATA``, or ``~/.cache/fewbits``."""
    return Path(os.environ.get("FEWBITS_DATA") or Path.home() / ".cache" / "fewbits")


def check_name(name: str) -> None:
    """Raise RecipeError for an unknown data set, with the nearest known one."""
    if name not in _LOADERS:
        raise RecipeError(f"no data set is called {name!r}{did_you_mean(name, NAMES)} (known: {', '.join(NAMES)})")
