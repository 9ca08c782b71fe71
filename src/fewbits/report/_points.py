"""Rows of a benchmark, and the same setting measured with several seeds as one point."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

MEASURED = {
    "accuracy": "accuracy, %",
    "baseline_accuracy": "float accuracy, %",
    "bytes": "bytes",
    "float_bytes": "float32 bytes",
    "ratio": "ratio",
    "sparsity": "sparsity",
    "epochs": "epochs",
    "seconds": "time, s",
    "peak_bytes": "peak memory, bytes",
    "encode_weights_per_second": "encoded weights/s",
    "decode_weights_per_second": "decoded weights/s",
    "speedup": "speedup",
    "rank_correlation": "rank correlation",
}
"""Keys of a row that are outcomes, and what a table calls them."""
_LARGEST = sys.float_info.max
_NAMES = ("model", "data", "method", "seed", "split", "versus")
_SERIES: dict[str, tuple[Any, str]] = {
    "damping": (0.0, "damping {:g}"), "step_rule": ("range", "{} steps"), "epochs": (None, "{:g} epochs"),
    "lr": (None, "learning rate {:g}"), "dropout": (True, "without dropout"),
    "gradual": (False, "gradual lambda"), "min_kept": (0.0, "min_kept {:.2%}"),
    "significand": (None, "{:g} significant bits"),
}  # fmt: skip
"""Settings of a training, with what a row means that does not say them: where they differ, so do the methods."""
_CHOSEN = ("target", "rule", "images", "noise", "case")
_EARLIER = {"step": "step_rule", "floor": "min_kept"}
"""What rows of published results call some of these; the rows stay as they were written."""


def _said(words: str, value: Any) -> str:
    """A setting in words; one that is no number, such as ``0.5%``, as it was written."""
    words = words.removesuffix("s") if is_number(value) and value == 1 else words
    return words.format(value) if is_number(value) else re.sub(r"\{:[^}]*\}", lambda _: str(value), words).format(value)


@dataclass(frozen=True)
class Point:
    """One setting of one method, over its seeds.

    Attributes:
        method: its name, with how it was trained where rows of one name differ in that.
        setting: what tells it from the method's other points, such as ``{"bits": 4}``.
        rows: one per seed.
    """

    method: str
    setting: dict[str, Any]
    rows: tuple[Row, ...]

    def values(self, key: str) -> list[float]:
        """The finite numbers that the rows have under ``key``."""
        return [float(row[key]) for row in self.rows if is_number(row.get(key))]

    def mean(self, key: str) -> float | None:
        """Mean over the rows that have it, or ``None``."""
        found = self.values(key)
        return sum(found) / len(found) if found else None


def is_number(value: object) -> bool:
    """Whether it is a finite number (``True`` is not one)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def by_task(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of each (model, data), in the order of their first appearance."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row.get("model", "-")), str(row.get("data", "-"))), []).append(row)
    return groups


def points(rows: Sequence[Row]) -> list[Point]:
    """Rows of one task as points: method by method, setting by setting, in the order of first appearance."""
    rows = [{_EARLIER.get(key, key): value for key, value in row.items()} for row in rows]
    methods: dict[str, list[Row]] = {}
    for row, name in zip(rows, _names(rows), strict=True):
        methods.setdefault(name, []).append(row)
    found = []
    for method, mine in methods.items():
        keys = _settings(mine)
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in mine:
            groups.setdefault(tuple(repr(row.get(key)) for key in keys), []).append(row)
        differing = [key for key in keys if len({repr(row.get(key)) for row in mine}) > 1]
        found += [Point(method, {k: g[0].get(k) for k in differing}, tuple(g)) for g in groups.values()]
    return found


def _names(rows: Sequence[Row]) -> list[str]:
    """The method of each row, and how it was trained where the rows of that method differ in it."""
    plain = [str(row.get("method", "-")) for row in rows]
    seen: dict[tuple[str, str], set[str]] = {}
    for row, method in zip(rows, plain, strict=True):
        for key, (usual, _) in _SERIES.items():
            seen.setdefault((method, key), set()).add(repr(row.get(key, usual)))

    def named(keys: Sequence[str]) -> list[str]:
        names = []
        for row, method in zip(rows, plain, strict=True):
            name = method
            for key in keys:
                usual, words = _SERIES[key]
                value = row.get(key, usual)
                if len(seen[method, key]) > 1 and value != usual:
                    name += f", {_said(words, value)}"
            names.append(name)
        return names

    whole, short = named(list(_SERIES)), named([key for key in _SERIES if key != "lr"])
    # Older rows do not say their learning rate, which is seldom all that tells two trainings apart.
    needed = {m for m in set(plain) if _count(whole, plain, m) > _count(short, plain, m)}
    return [full if method in needed else brief for full, brief, method in zip(whole, short, plain, strict=True)]


def _count(names: Sequence[str], methods: Sequence[str], method: str) -> int:
    """How many names the rows of a method have."""
    return len({name for name, of in zip(names, methods, strict=True) if of == method})


def measured(rows: Sequence[Row]) -> list[str]:
    """Keys of the rows that hold outcomes as numbers: the known ones first, then those that look it."""
    chosen = _settings(rows)
    free = dict.fromkeys(key for row in rows for key in row if key not in (*MEASURED, *_NAMES, *chosen))
    return [key for key in (*MEASURED, *free) if any(is_number(row.get(key)) for row in rows)]


def _settings(rows: Sequence[Row]) -> list[str]:
    """Keys that say how a row was made.

    Rows carry free keys. One that takes the same values for every seed was chosen; one that differs between
    seeds was measured. Some are always chosen, also where not every seed has run at all of them.
    """
    keys = dict.fromkeys(key for row in rows for key in row if key not in MEASURED and key not in _NAMES)
    seeds: dict[str, list[Row]] = {}
    for row in rows:
        seeds.setdefault(repr(row.get("seed")), []).append(row)

    def chosen(key: str) -> bool:
        if key in _CHOSEN:
            return True
        every = [Counter(repr(row.get(key)) for row in mine) for mine in seeds.values()]
        return all(counts == every[0] for counts in every)

    return [key for key in keys if chosen(key)]
