"""Pieces of a function: the best polynomials between given knots, tables, and what goes on beyond the ends."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.polynomial import polynomial as powers

from fewbits.approximation import Pieces
from fewbits.errors import RecipeError
from fewbits.ops import _proof as proof
from fewbits.ops._functions import Array, Function, Line
from fewbits.ops._minimax import minimax

Outside = Literal["continue", "clamp", "error"]


def pieced(function: Function, knots: Array, degree: int) -> Pieces:
    """The best polynomial of each piece, as float32 numbers."""
    ends = np.asarray(knots, np.float32).astype(np.float64)
    widest = float(np.diff(ends).max()) / 2
    made = Pieces(tuple(map(float, ends)), ((0.0,),) * (len(ends) - 1), 2.0 ** math.ceil(math.log2(widest)))
    rows = []
    for (a, b), middle in zip(itertools.pairwise(ends), proof.middles(made), strict=True):
        own, _ = minimax(function, a, b, degree)
        # from u = (x - (a + b) / 2) / ((b - a) / 2) to t = (x - middle) / scale
        half = (b - a) / 2
        inner = np.array([(middle - (a + b) / 2) / half, made.scale / half])
        row = np.zeros(1)
        for c in own[::-1]:
            row = powers.polyadd(powers.polymul(row, inner), [c])
        rows.append(tuple(_single(c) for c in np.pad(row, (0, max(0, degree + 1 - len(row))))[: degree + 1]))
    return replace(made, coefficients=tuple(rows))


def table(function: Function, domain: tuple[float, float], places: int) -> Pieces:
    """Lines between the function's own values at equal distances."""
    ends = np.linspace(*domain, places + 1).astype(np.float32).astype(np.float64)
    if (np.diff(ends) <= 0).any():
        raise RecipeError(f"{function.name}: float32 has no {places} places between {domain[0]:g} and {domain[1]:g}")
    values = function(ends)
    scale = 2.0 ** math.ceil(math.log2(float(np.diff(ends).max()) / 2))
    made = Pieces(tuple(map(float, ends)), ((0.0,),) * places, scale)
    slopes = np.diff(values) / np.diff(ends)
    at = values[:-1] + slopes * (proof.middles(made) - ends[:-1])
    return replace(made, coefficients=tuple((_single(a), _single(s * scale)) for a, s in zip(at, slopes, strict=True)))


def _single(value: float) -> float:
    return float(np.float32(value))


def continued(function: Function, made: Pieces, outside: Outside | None) -> Pieces:
    """The pieces with what happens beyond the domain."""
    if outside is None:
        outside = "continue" if function.left is not None and function.right is not None else "error"
    if outside == "error":
        return replace(made, left=None, right=None)
    return replace(made, left=_line(function.left, made, 0, outside), right=_line(function.right, made, -1, outside))


def _line(approached: Line | None, made: Pieces, end: int, outside: Outside) -> Line:
    if outside == "continue" and approached is not None:
        return float(approached[0]), float(approached[1])
    x = made.domain[end]
    t = (x - float(proof.middles(made)[end])) / made.scale
    row = np.array(made.coefficients[end])
    value = float(powers.polyval(t, row))
    slope = float(powers.polyval(t, powers.polyder(row))) / made.scale if outside == "continue" else 0.0
    return _single(value - slope * x), _single(slope)
