"""How a network's quality is told: which way is better, and in what a drop is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fewbits.errors import DataError, NonFiniteError, RecipeError, did_you_mean


@dataclass(frozen=True)
class Metric:
    """A scale of quality.

    Attributes:
        name: ``percent`` (0 to 100), ``fraction`` (0 to 1), ``loss`` (lower is better) or ``score`` (higher is
            better, in any unit).
        score: from what was measured to a number of which higher is better, in the unit of ``max_drop``.
        shown: from a score to the number that reports show: percent for fractions, too.
    """

    name: str
    score: Callable[[float], float]
    shown: Callable[[float], float]

    @property
    def word(self) -> str:
        """What reports call it."""
        return {"loss": "loss", "score": "score"}.get(self.name, "accuracy")


def _same(value: float) -> float:
    return value


def _turned(value: float) -> float:
    return -value


METRICS = {
    "percent": Metric("percent", _same, _same),
    "fraction": Metric("fraction", lambda value: 100 * value, _same),
    "loss": Metric("loss", _turned, _turned),
    "score": Metric("score", _same, _same),
}


def metric_of(name: str) -> Metric:
    """A scale by its name.

    Raises:
        RecipeError: no such name.
    """
    if not isinstance(name, str) or name not in METRICS:
        raise RecipeError(f"no metric named {name!r}{did_you_mean(name, METRICS)} ({', '.join(METRICS)})")
    return METRICS[name]


def number(value: Any, whose: str = "evaluate") -> float:
    """A finite number out of whatever a function returned: a number, or a tensor or array of one.

    Raises:
        DataError: no number. NonFiniteError: NaN or infinity.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"{whose} returned {_words(value)}; it has to return one number") from None
    if not math.isfinite(found):
        raise NonFiniteError(
            f"{whose} returned {found}; it has to return a finite number (are the network's outputs finite?)"
        )
    return found


def check_percent(value: float) -> None:
    """Refuse what is a fraction, most likely: then every network would keep a drop of half a point.

    Raises:
        DataError: a float network of at most 1 percent.
    """
    if 0 <= value <= 1:
        raise DataError(
            f'evaluate gives {value:.4g} for the float network, which is read as percent; say metric="fraction" if it '
            'is a share from 0 to 1, metric="loss" if lower is better, metric="percent" if it is percent'
        )


def _words(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return (
        f"{type(value).__name__} of shape {tuple(shape)}" if shape is not None else " ".join(repr(value).split())[:60]
    )
