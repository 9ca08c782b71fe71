"""The section of a recipe that says what a sweep varies, and what it weighs. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from fewbits.errors import RecipeError, did_you_mean
from fewbits.recipe.notation import parse_size
from fewbits.recipe.problems import TYPES, said
from fewbits.recipe.sections import Part

_SHARED = ("network", "pretrain", "data.name", "data.folder", "data.options", "data.normalise")
_ELSEWHERE = ("schema", "output", "sweep")


class Range(Part):
    """All numbers between two: whole ones if both ends are, bytes if they are written as sizes (``"3 KB"``).

    Attributes:
        begin, end: written ``from`` and ``to``; both belong to the range.
        log: equal ratios are equally likely, not equal differences.
        step: only ``begin``, ``begin + step``, ...
    """

    begin: Annotated[float | int | str, Field(alias="from")]
    end: Annotated[float | int | str, Field(alias="to")]
    log: bool = False
    step: Annotated[float | int, Field(gt=0)] | None = None

    @field_validator("begin", "end", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"a range is between two numbers, got {value!r}; write [false, true] for both")
        return parse_size(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _rising(self) -> Range:
        low, high = self.low, self.high
        if not low < high:
            raise ValueError(f"'from' must lie below 'to', got {low:g} and {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"a range with 'log: true' must begin above 0, got {low:g}")
        if self.log and self.step is not None:
            raise ValueError("give 'log' or 'step', not both")
        return self

    @property
    def low(self) -> float | int:
        assert not isinstance(self.begin, str)  # sizes have become numbers
        return self.begin

    @property
    def high(self) -> float | int:
        assert not isinstance(self.end, str)
        return self.end

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole ones."""
        steps = self.step is None or isinstance(self.step, int)
        return isinstance(self.begin, int) and isinstance(self.end, int) and steps


class Sweep(Part):
    """What ``fewbits sweep`` tries.

    Attributes:
        over: dotted keys of the recipe, each with a list of values (any YAML, such as whole sections) or a range.
        trials: how many settings.
        objectives: ``accuracy`` (validation, percent), ``bytes``, and costs of a plan: ``parameters`` (not zero),
            ``macs``, ``flops``, and on a machine ``latency@NAME`` (ms), ``energy@NAME`` (uJ), ``traffic@NAME`` (bytes).
        sampler: ``tpe`` learns from finished trials, ``sobol`` spreads them evenly, ``random`` does not care.
        batch: settings that ``tpe`` draws at a time, once all before them are finished. So the settings depend on the
            seed alone, however many workers there are; a multiple of their number keeps all of them busy.
        seed: of the list of settings; the seed of training is the recipe's.
    """

    over: dict[str, list[Any] | Range]
    trials: Annotated[int, Field(ge=1)] = 40
    objectives: tuple[str, ...] = ("accuracy", "bytes")
    sampler: Literal["tpe", "sobol", "random"] = "tpe"
    batch: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("over", mode="before")
    @classmethod
    def _lists_and_ranges(cls, over: Any) -> Any:
        if not isinstance(over, dict):
            raise ValueError("write the keys to vary as a mapping, for example {assign.bits: [2, 3, 4]}")
        return {str(key): _values(str(key), values) for key, values in over.items()}

    @field_validator("over")
    @classmethod
    def _keys(cls, over: dict[str, list[Any] | Range]) -> dict[str, list[Any] | Range]:
        if not over:
            raise ValueError("name at least one key of the recipe, for example assign.bits: [2, 3, 4]")
        for key, values in over.items():
            if isinstance(values, list) and not values:
                raise ValueError(f"{key}: the list of values is empty")
            if _within(key, _SHARED):
                raise ValueError(f"{key}: all trials start from one float network, so nothing that makes it can vary")
            if _within(key, _ELSEWHERE):
                raise ValueError(f"{key} is not a setting that a sweep can vary")
            if key == "seed":
                raise ValueError("seed is not a setting: choosing by it would choose luck")
            for other in over:
                if other != key and _within(other, (key,)):
                    raise ValueError(f"{key} and {other}: one would overwrite the other; give whole sections as values")
        return over

    @field_validator("objectives")
    @classmethod
    def _different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError(f"objectives must be different, and at least one: got {list(names)}")
        return names


def _values(key: str, values: Any) -> list[Any] | Range:
    if isinstance(values, list | Range):
        return values
    if not isinstance(values, dict):
        raise ValueError(f"{key}: give a list of values, or a range like {{from: 0.1, to: 2, log: true}}")
    unknown = sorted(set(values) - {"from", "to", "log", "step"})
    if unknown:
        hint = did_you_mean(unknown[0], ["from", "to", "log", "step"])
        raise ValueError(f"{key}: a range has 'from', 'to', 'log' and 'step', not {unknown[0]!r}{hint}")
    try:
        return Range.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(key) for key in first["loc"] if key not in TYPES)
        raise ValueError(f"{key}: {f'{name}{said(first)}'.removeprefix(': ')}") from None


def _within(key: str, parents: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Plain data of a recipe with dotted keys replaced; sections that are missing are made.

    A new ``target`` or ``max_drop`` goes before the recipe's ``assign.lam``, and a new one before its budget.

    Raises:
        RecipeError: a key below something that is no section.
    """
    result = _copied(values)
    if "assign.lam" in changes or (isinstance(changes.get("assign"), dict) and "lam" in changes["assign"]):
        result.pop("target", None)
        result.pop("max_drop", None)
    if {"target", "max_drop"} & set(changes) and isinstance(result.get("assign"), dict):
        result["assign"].pop("lam", None)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = result
        for name in parents:
            inner = place.get(name)
            if inner is None:
                inner = place[name] = {}
            if not isinstance(inner, dict):
                raise RecipeError(f"{key}: {name} is {inner!r}, not a section")
            place = inner
        place[last] = _copied(value)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
