"""How sparsity rises while a network trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fewbits.errors import RecipeError

Schedule = Callable[[float], float]
"""``schedule(share of the training that is over, 0..1) -> share of the final sparsity, 0..1``."""


def rising(kind: Literal["one-shot", "linear", "cubic"], begin: float = 0.0, end: float = 0.5) -> Schedule:
    """A schedule by its name; any function of the same kind will do as well.

    ``cubic`` is ``1 - (1 - x)**3`` with x going from 0 to 1 between ``begin`` and ``end`` (Zhu and Gupta 2017;
    Feather's with 0 and 0.5; Global MP does not print its own). ``one-shot`` is all of it from the start.

    Args:
        begin, end: shares of the training at which sparsity starts to rise, and is reached.

    Raises:
        RecipeError: an unknown kind, or not ``0 <= begin < end <= 1``.
    """
    if kind not in ("one-shot", "linear", "cubic"):
        raise RecipeError(f"no schedule is called {kind!r} (known: one-shot, linear, cubic)")
    if not 0 <= begin < end <= 1:
        raise RecipeError(f"a schedule needs 0 <= begin < end <= 1, got {begin} and {end}")
    if kind == "one-shot":
        return lambda share: 1.0
    power = 1 if kind == "linear" else 3

    def at(share: float) -> float:
        x = min(1.0, max(0.0, (share - begin) / (end - begin)))
        return float(1 - (1 - x) ** power)

    return at
