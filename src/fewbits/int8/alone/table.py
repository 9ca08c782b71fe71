"""Functions of torch by name, and what those that compute in integers ask of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewbits.int8.alone.mode import Alone, OnGrid, on_grid
from fewbits.int8.alone.tape import Levels

Function = Callable[[Alone, Any, Any, Any], Any]
FUNCTIONS: dict[str, Function] = {}
"""What has a form in integers alone, by the name that it has however it is called, without underscores around it."""


def of(names: str) -> Callable[[Function], Function]:
    """Register under names without the underscores around them."""

    def register(function: Function) -> Function:
        FUNCTIONS.update(dict.fromkeys(names.split(), function))
        return function

    return register


def carried(x: Tensor) -> OnGrid:
    """What a tensor carries that does carry something."""
    found = on_grid(x)
    assert found is not None
    return found


def levels_of(x: Tensor) -> Levels:
    """Its levels, where ranges are no longer measured."""
    found = carried(x).levels
    assert found is not None
    return found


def ahead(args: Any, kwargs: Any, names: str, *defaults: Any) -> list[Any]:
    """Arguments by place or name."""
    order = names.split()
    given = dict(zip(order, args, strict=False)) | kwargs
    return [given.get(name, default) for name, default in zip(order, defaults, strict=True)]
