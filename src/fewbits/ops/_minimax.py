"""The polynomial of least largest error on an interval, and intervals as long as an error allows.

The polynomials come from Remez' exchange on a grid of Chebyshev points. Nothing here is a proof: the bound that an
approximation states is computed afterwards, from the numbers as they are kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from fewbits.ops._functions import Array, Function

TIGHT = 1e-3  # relative, of errors that are made equal


@cache
def _grid(degree: int) -> tuple[Array, Array]:
    """Chebyshev points of [-1, 1], increasing, and their powers."""
    count = max(65, 24 * (degree + 2) + 1)
    points = -np.cos(np.linspace(0, np.pi, count))
    return points, np.vander(points, degree + 1, increasing=True)


def minimax(function: Function, a: float, b: float, degree: int) -> tuple[Array, float]:
    """Coefficients in ``t`` of [-1, 1], which stands for [a, b], and the largest error on the grid."""
    points, powers = _grid(degree)
    values = function((a + b) / 2 + (b - a) / 2 * points)
    if degree == 0:
        middle = (values.max() + values.min()) / 2
        return np.array([middle]), float(values.max() - middle)
    if degree == 1:
        bends = np.diff(np.diff(values) / np.diff(points))
        if (bends >= -1e-14).all() or (bends <= 1e-14).all():  # convex or concave: the secant, moved
            slope = (values[-1] - values[0]) / 2
            rest = values - slope * points
            middle = (rest.max() + rest.min()) / 2
            return np.array([middle, slope]), float(rest.max() - middle)
    return _exchange(values, points, powers, degree)


def _exchange(values: Array, points: Array, powers: Array, degree: int) -> tuple[Array, float]:
    at = np.round(np.linspace(0, len(points) - 1, degree + 2)).astype(int)
    signs = (-1.0) ** np.arange(degree + 2)
    best, least = np.zeros(degree + 1), np.inf
    for _ in range(20):
        solved = np.linalg.solve(np.column_stack([powers[at], signs]), values[at])
        off = values - powers @ solved[:-1]
        largest = float(np.abs(off).max())
        if largest < least:
            best, least = solved[:-1], largest
        if largest <= abs(solved[-1]) * (1 + TIGHT) + 1e-15:
            break
        # the extremum of each run of one sign; of more than are needed, the neighbours that together are largest
        starts = np.flatnonzero(np.diff(np.sign(off))) + 1
        runs = np.split(np.arange(len(off)), starts)
        peaks = np.array([run[np.abs(off[run]).argmax()] for run in runs])
        if len(peaks) < degree + 2:
            break
        first = max(range(len(peaks) - degree - 1), key=lambda i: np.abs(off[peaks[i : i + degree + 2]]).min())
        at = peaks[first : first + degree + 2]
    return best, least


def error(function: Function, a: float, b: float, degree: int) -> float:
    """Of the best polynomial."""
    return minimax(function, a, b, degree)[1]


def furthest(function: Function, a: float, end: float, degree: int, allowed: float, guess: float) -> float:
    """The largest b up to ``end`` for which a polynomial on [a, b] keeps the error."""
    if error(function, a, min(a + guess, end), degree) <= allowed:
        low, high = min(a + guess, end), np.inf
    else:
        low, high = a, a + guess
    while low < end and high == np.inf:
        step = min(a + 1.6 * (low - a), end)
        if error(function, a, step, degree) <= allowed:
            low = step
        else:
            high = step
    if low >= end:
        return end
    size = high - a
    for _ in range(40):
        found = error(function, a, a + size, degree)
        low, high = (a + size, high) if found <= allowed else (low, a + size)
        if (found <= allowed and found >= allowed * (1 - TIGHT)) or high - low < 1e-12 * max(1.0, abs(a)):
            break
        size *= float(np.clip((allowed * (1 - TIGHT / 2) / max(found, 1e-300)) ** (1 / (degree + 1)), 0.3, 3.0))
        if not low < a + size < high:
            size = (low + high) / 2 - a
    return low


def knots_for(function: Function, domain: tuple[float, float], degree: int, allowed: float, most: int) -> Array | None:
    """As few knots as keep the error: each piece as long as it may be; ``None`` if more than ``most`` pieces."""
    a, end = domain
    knots, guess = [a], (end - a) / 8
    while knots[-1] < end:
        if len(knots) > most:
            return None
        knots.append(furthest(function, knots[-1], end, degree, allowed, guess))
        if knots[-1] <= knots[-2]:
            return None  # an error that float64 cannot keep
        guess = knots[-1] - knots[-2]
    return np.array(knots)


def best_knots(function: Function, domain: tuple[float, float], degree: int, pieces: int) -> Array:
    """The knots of least error: the smallest error for which as many pieces are enough."""
    high = error(function, *domain, degree)
    if pieces == 1 or high == 0:
        return np.array(domain)
    low, found = high * pieces ** -(2.0 * degree + 2), None
    while found is None or high > low * (1 + 2 * TIGHT):
        middle = float(np.sqrt(high * low)) if found is not None or high / low > 4 else high
        tried = knots_for(function, domain, degree, middle, pieces)
        if tried is None:
            low = middle
        else:
            high, found = middle, tried
    return found
