"""Approximations for the operations of a network, on the ranges that they have on a user's data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fewbits.approximation import Approximation
from fewbits.errors import RecipeError
from fewbits.ops._functions import CORES, FUNCTIONS, Function
from fewbits.ops._module import check_row
from fewbits.ops.fit import fit
from fewbits.ops.places import FAMILIES, Place

ROOM = 1.05
"""How much farther than the measured ones numbers may reach."""


def chosen(asked: Mapping[str, Mapping[str, Any]], found: list[Place]) -> dict[str, Approximation]:
    """What was asked for, by operation, for the operations that are there.

    Args:
        asked: for each operation the arguments of :func:`fewbits.ops.fit`. found: the places of a network; all places
            of an operation get the same approximation.

    Raises:
        RecipeError: an operation that the network does not call, or an approximation that cannot be.
    """
    made = {}
    for name, options in asked.items():
        for one in called(name, found):
            made[one] = _one(one, dict(options), [place for place in found if place.operation == one])
    return made


def called(name: str, found: list[Place]) -> list[str]:
    """The operations of a name, or of a family's, that the places call.

    Raises:
        RecipeError: they call none.
    """
    names = [one for one in FAMILIES.get(name, (name,)) if any(place.operation == one for place in found)]
    if not names:
        there = ", ".join(sorted({_asked_as(place.operation) for place in found})) or "none that is known"
        raise RecipeError(f"ops: the network calls no {name}; it calls {there}")
    return names


def _asked_as(operation: str) -> str:
    return next((name for name, members in FAMILIES.items() if operation in members), operation)


def _one(name: str, options: dict[str, Any], own: list[Place]) -> Approximation:
    low, high = min(place.low for place in own), max(place.high for place in own)
    integer = options.get("kind") == "integer" or (options.get("kind") is None and options.get("bits") is not None)
    split = name in CORES and not integer  # powers of two, so that no range is needed
    if options.get("domain") is None and low < high and not split:
        options["domain"] = _domain(name, low, high, options)
    found = fit(name, **options)
    if found.kind == "integer" and name in ("layer_norm", "rms_norm"):
        return _normalisation(found, own)
    return found


def _domain(name: str, low: float, high: float, options: dict[str, Any]) -> tuple[float, float]:
    """The measured range and some room; of a function that is nearly its line far out, only up to there."""
    if name not in FUNCTIONS:
        return low * ROOM if low < 0 else low, high * ROOM
    function, room = FUNCTIONS[name], (high - low) * (ROOM - 1)
    low, high = max(low - room, low / 2 if function.low == 0 else -math.inf), high + room
    allowed = options.get("error")
    if allowed is None or options.get("kind") == "integer":
        return low, high
    first, last = _until(function, "left", low, allowed), _until(function, "right", high, allowed)
    return (first, last) if first < last else (low, high)


def _until(function: Function, side: str, end: float, allowed: float) -> float:
    """The end nearer to zero, from which on the line of the function is good enough."""
    sign = -1 if side == "left" else 1
    for x in np.arange(0.25, abs(end), 0.25):
        if sign * end > 0 and function.far(sign * float(x), side) <= allowed / 2:
            return sign * float(x)
    return end


def _normalisation(found: Approximation, own: list[Place]) -> Approximation:
    """With a bound for rows whose deviation is at least half of the least, and that reach no farther than twice.

    Inputs that move by half a unit each move a normalised number y by at most ``(1 + |y| / 2)`` units over the
    deviation that is left; the root is off by one of at least ``2**7``-th of it, and the end by half a unit.
    """
    check_row(max(place.row for place in own))
    unit, step = found.units
    spread, reach = min(place.spread for place in own) / 2, 2 * max(place.reach for place in own)
    if spread <= unit:
        return found
    moved = unit * (1 + reach / 2) / (spread - unit / 2)
    size = max(place.row for place in own)
    root = reach * unit / (spread * size) * 2
    return replace(found, bound=moved + root + step / 2 + 1e-6 * reach)
