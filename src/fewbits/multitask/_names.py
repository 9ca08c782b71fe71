"""Names of tasks: they are parts of the names of tensors, in networks and in files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from fewbits.errors import RecipeError

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def checked(names: Iterable[str]) -> list[str]:
    """The names, if each can be part of a tensor's name.

    Raises:
        RecipeError: none at all, one twice, one with other characters than letters, digits, ``_`` and ``-``, or one
            that PyTorch's containers need for themselves.
    """
    found = list(names)
    if not found:
        raise RecipeError("there are no tasks")
    for name in found:
        if found.count(name) > 1:
            raise RecipeError(f"task {name!r} is there twice")
        if _NAME.fullmatch(name) is None:
            raise RecipeError(f"task {name!r}: a name has letters, digits, _ and - only, as tensors are named by it")
        if any(hasattr(container, name) for container in (nn.ModuleDict(), nn.ParameterDict())):
            raise RecipeError(f"task {name!r}: PyTorch needs this word for itself; call it {name}-task")
    return found
