"""The settings a sweep chooses from: dotted keys of a recipe, each with a list of values or a range."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fewbits.recipe.variation import Range, Sweep

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

Params = dict[str, Any]
"""One setting, by key: a number, or of a list the text of the value (``labels``)."""


def label(value: Any) -> str | int | float | bool | None:
    """What a value of a list is called in tables and storages: itself, or JSON where it is a section or a list."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


@dataclass(frozen=True)
class SweepSpace:
    """The keys of a sweep, in order."""

    over: dict[str, list[Any] | Range]

    @staticmethod
    def of(sweep: Sweep) -> SweepSpace:
        return SweepSpace(dict(sweep.over))

    @property
    def size(self) -> int | None:
        """How many settings there are; ``None`` if a range has fractions without steps."""
        count = 1
        for values in self.over.values():
            steps = len(values) if isinstance(values, list) else _steps(values)
            if steps is None:
                return None
            count *= steps
        return count

    def at(self, place: list[float]) -> Params:
        """The setting at a point of the unit cube, one coordinate in [0, 1) per key."""
        return {key: _at(values, u) for (key, values), u in zip(self.over.items(), place, strict=True)}

    def changes(self, params: Params) -> dict[str, Any]:
        """What a setting changes in the recipe, by dotted key."""
        return {key: _value(values, params[key]) for key, values in self.over.items()}

    def suggest(self, trial: Trial) -> Params:
        """The setting of a trial, which Optuna has been given or draws."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        for key, spread in self.distributions().items():
            if isinstance(spread, CategoricalDistribution):
                trial.suggest_categorical(key, spread.choices)
            elif isinstance(spread, IntDistribution):
                trial.suggest_int(key, spread.low, spread.high, step=spread.step, log=spread.log)
            elif isinstance(spread, FloatDistribution):
                trial.suggest_float(key, spread.low, spread.high, step=spread.step, log=spread.log)
        return dict(trial.params)

    def distributions(self) -> dict[str, BaseDistribution]:
        """The same space for Optuna."""
        return {key: _distribution(values) for key, values in self.over.items()}


def _steps(values: Range) -> int | None:
    if values.step is not None:
        return math.floor((values.high - values.low) / values.step + 1e-9) + 1
    return int(values.high - values.low) + 1 if values.whole else None


def _at(values: list[Any] | Range, u: float) -> Any:
    if isinstance(values, list):
        return label(values[min(len(values) - 1, int(u * len(values)))])
    low, high, count = values.low, values.high, _steps(values)
    if values.log:
        if not values.whole:
            return min(float(high), max(float(low), low * (high / low) ** u))
        bottom, top = low - 0.5, high + 0.5
        return min(int(high), max(int(low), round(bottom * (top / bottom) ** u)))
    if count is None:
        return low + (high - low) * u
    found = low + min(count - 1, int(u * count)) * (1 if values.step is None else values.step)
    return int(found) if values.whole else float(found)


def _value(values: list[Any] | Range, chosen: Any) -> Any:
    if isinstance(values, Range):
        return chosen
    return next(v for v in values if label(v) == chosen and isinstance(label(v), bool) == isinstance(chosen, bool))


def _distribution(values: list[Any] | Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution([label(v) for v in values])
    if values.whole:
        step = 1 if values.step is None else int(values.step)
        high = values.low + (_steps(values) or 1) * step - step  # Optuna wants whole steps
        return IntDistribution(int(values.low), int(high), log=values.log, step=step)
    top = values.high if values.step is None else values.low + ((_steps(values) or 1) - 1) * values.step
    return FloatDistribution(float(values.low), float(top), log=values.log, step=values.step)
