"""The functions of torch that have a form in integers alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewbits.int8.alone import layers, nonlinear, sums  # noqa: F401  # which fill the table
from fewbits.int8.alone.mode import Alone
from fewbits.int8.alone.moving import move
from fewbits.int8.alone.nonlinear import approximated
from fewbits.int8.alone.table import FUNCTIONS
from fewbits.ops._calls import called


def call(mode: Alone, func: Any, args: Any, kwargs: Any) -> Any:
    """A function of at least one tensor on a grid."""
    name = getattr(func, "__name__", str(func)).strip("_")
    if name == "get":  # an attribute
        found = func(*args, **kwargs)
        return move(mode, func, args, kwargs) if isinstance(found, Tensor) and found.is_floating_point() else found
    known = called(func, args, kwargs)
    if known is not None:
        return approximated(mode, func, args, kwargs, *known)
    if name not in FUNCTIONS:
        raise mode.unsupported(name)
    return FUNCTIONS[name](mode, func, args, kwargs)
