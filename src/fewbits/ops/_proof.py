"""The bound of an approximation's error: a grid, and what the second derivative allows between its points.

Between two points of distance h, an error differs from its larger neighbour by at most ``h**2 / 8`` times the largest
second derivative there, which a bound of the function's and one of the polynomial's give. To this come the rounding of
a Horner scheme in float32, and that of the function's own values in float64.
"""

from __future__ import annotations

import numpy as np

from fewbits.approximation import Pieces
from fewbits.ops._functions import Array, Function

UNIT = 2.0**-24 * 1.0001  # of float32 rounding; the products of a few of them included
MOST_POINTS = 1 << 21
FINE = 0.002  # what lies between the points is at most this share of the whole, if enough points are allowed


def middles(pieces: Pieces) -> Array:
    """Of each piece, in float32, as evaluation has them."""
    knots = np.array(pieces.knots, np.float32)
    return (np.float32(0.5) * (knots[:-1] + knots[1:])).astype(np.float64)


def polynomial(coefficients: Array, t: Array) -> Array:
    """Rows of values: of coefficients ``[n, degree + 1]`` at points ``[n, m]``."""
    found = np.zeros_like(t)
    for column in coefficients.T[::-1]:
        found = found * t + column[:, None]
    return found


def bound(function: Function, pieces: Pieces) -> float:
    """No error inside the domain is larger, of a float32 number that goes through a Horner scheme in float32."""
    knots, rows = np.array(pieces.knots, np.float64), np.array(pieces.coefficients, np.float64)
    middle, widths = middles(pieces), np.diff(knots)
    order = np.arange(rows.shape[1])
    reach = np.maximum(middle - knots[:-1], knots[1:] - middle) / pieces.scale
    sizes = np.abs(rows) * reach[:, None] ** order
    rounding = (3 * pieces.degree + 2) * UNIT * sizes.sum(1)
    bend = ((np.abs(rows) * order * (order - 1))[:, 2:] * reach[:, None] ** (order[2:] - 2)).sum(1) / pieces.scale**2
    points = 129
    while True:
        x = knots[:-1, None] + widths[:, None] * np.linspace(0, 1, points)
        exact = function(x)
        off = np.abs(exact - polynomial(rows, (x - middle[:, None]) / pieces.scale))
        cells = np.maximum(off[:, 1:], off[:, :-1])
        between = ((widths / (points - 1)) ** 2 / 8)[:, None] * (function.second(x[:, :-1], x[:, 1:]) + bend[:, None])
        least = float(cells.max())
        whole = float((cells + between + rounding[:, None]).max()) + 1e-14 * float(np.abs(exact).max() + 1)
        if float((cells + between).max()) <= least * (1 + FINE) or 2 * points * len(rows) > MOST_POINTS:
            return whole
        points = 2 * points - 1


def beyond(function: Function, pieces: Pieces, side: str) -> float:
    """The same for all numbers on one side of the domain; infinity where nothing is known."""
    line = pieces.left if side == "left" else pieces.right
    own = function.left if side == "left" else function.right
    edge = pieces.domain[0 if side == "left" else 1]
    if line is None or own is None:
        return float("inf")
    if line[1] != own[1]:
        return float("inf")
    return function.far(edge, side) + abs(line[0] - own[0]) + 4 * UNIT * abs(line[0])
