"""Operations in integers alone: additions, multiplications, shifts, one division or square root for a row.

The functions on NumPy's int64 arrays are the reference: what runs in torch and ONNX Runtime equals them bit for bit.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from fewbits.approximation import Approximation, Pieces
from fewbits.errors import RecipeError
from fewbits.ops._functions import Function
from fewbits.ops._minimax import best_knots, knots_for

Whole = NDArray[np.int64]

UP = 14  # fraction bits of log2 e
FRACTION = 15  # of the exponent's fraction
POWER = 24  # of powers of two
LOG2E = round(math.log2(math.e) * 2**UP)
# 2**-f on [0, 1], of least largest error (5.35e-5) under degree 3; in Horner's order
EXPONENTIAL = tuple(round(c * 2**POWER) for c in (-0.03960207, 0.23097561, -0.69137353, 0.99994652))
ROW = 4096  # entries of a row of softmax up to which its bound holds
SLOPE = 12  # bits that the lines of integers drop


def root(values: Whole) -> Whole:
    """The largest integers whose squares do not exceed these; non-negative, below 2**62. By Newton's method.

    The start is a power of two above the root, and at most twice it, so six steps are enough (Crandall and Pomerance,
    algorithm 9.2.11); they only fall.
    """
    found = np.ones_like(values)
    for i in range(31):
        found = np.where(values >= 4**i, 2 ** (i + 1), found)
    for _ in range(7):
        found = np.maximum(np.minimum(found, (found + values // found) // 2), 1)
    return np.where(values == 0, 0, found)


def exponential(levels: Whole, places: int) -> Whole:
    """``exp(-levels / 2**places)`` in units of 2**-24, for non-negative levels."""
    z = levels * LOG2E
    whole = np.minimum(z >> (places + UP), 31)
    rest = (z - (z >> (places + UP) << (places + UP))) >> (places + UP - FRACTION)
    found = np.full_like(levels, EXPONENTIAL[0])
    for coefficient in EXPONENTIAL[1:]:
        found = ((found * rest) >> FRACTION) + coefficient
    return found >> whole


def softmax(levels: Whole, bits: int) -> Whole:
    """Along the last dimension, of integers in units of ``2**-(bits + 4)``; the result in units of ``2**-bits``."""
    down = np.minimum(levels.max(-1, keepdims=True) - levels, 32 << (bits + 4))
    powers = exponential(down, bits + 4)
    total = powers.sum(-1, keepdims=True)
    return ((powers << (bits + 1)) + total) // (2 * total)


def normalised(levels: Whole, bits: int, epsilon: int = 0, *, centre: bool = True) -> Whole:
    """Layer normalisation along the last dimension, or by the root mean square; in units of ``2**-(bits - 3)``.

    Args:
        levels: below ``2**15`` in size, of a row of at most 8192. epsilon: in the square of the unit of the levels.
    """
    size = levels.shape[-1]
    moved = levels * size - levels.sum(-1, keepdims=True) if centre else levels * size
    spread = root((moved * moved).sum(-1, keepdims=True) // size + epsilon * size * size)
    spread = np.maximum(spread, 1)
    return (moved * 2 ** (bits - 2) + spread) // (2 * spread)


def evaluated(pieces: Pieces, levels: Whole) -> Whole:
    """A function of one number, level by level: a line, and a shift."""
    knots = np.array(pieces.knots, np.int64)
    rows = np.array(pieces.coefficients, np.int64)
    inside = np.clip(levels, knots[0], knots[-1])
    at = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(rows) - 1)
    return (rows[at, 0] + rows[at, 1] * (inside - knots[at])) >> pieces.shift


def lines(function: Function, domain: tuple[float, float], bits: int) -> Approximation:
    """Integer lines of a function of one number; as many as the step of the outputs asks for."""
    high = 2 ** (bits - 1) - 1
    unit = float(np.float32(max(abs(domain[0]) / (high + 1), abs(domain[1]) / high)))
    first, last = math.ceil(domain[0] / unit - 0.5), math.floor(domain[1] / unit + 0.5)
    first, last = max(first, -high - 1), min(last, high)
    if function.low > -math.inf:
        first = max(first, 1)
    if last <= first:
        raise RecipeError(f"{function.name}: {bits} bits have no two levels between {domain[0]:g} and {domain[1]:g}")
    every = np.arange(first, last + 1)
    exact = function(every * unit)
    step = float(np.float32(np.abs(exact).max() / high))
    ends = (first * unit, last * unit)
    knots = knots_for(function, ends, 1, step / 2, len(every) - 1)
    if knots is None:
        knots = np.linspace(*ends, len(every))
    elif len(knots) > 2:
        knots = best_knots(function, ends, 1, len(knots) - 1)
    at = np.unique(np.round(knots / unit).astype(np.int64))
    at[0], at[-1] = first, last
    at = np.unique(at)
    rows = []
    for a, b in itertools.pairwise(at):
        own = slice(int(a - first), int(b - first) + 1)
        x, y = (every[own] - a).astype(np.float64), exact[own] / step
        slope = (y[-1] - y[0]) / x[-1]
        rest = y - slope * x
        middle = (rest.max() + rest.min()) / 2
        rows.append((round((middle + 0.5) * 2**SLOPE), round(slope * 2**SLOPE)))
    if max(abs(number) for row in rows for number in row) >= 1 << 24:
        raise RecipeError(f"{function.name}: {bits} bits do not hold its slopes on {domain}: give a narrower domain")
    pieces = Pieces(
        tuple(map(float, at)), tuple((float(c), float(s)) for c, s in rows), 1.0, (0.0, 0.0), (0.0, 0.0), SLOPE
    )
    # All levels are tried. Between them the function moves by at most its slope times the distance, which is half a
    # unit, or what the ends of the domain lie beyond; a quotient in float32 may fall to the other side of a tie.
    off = np.abs(evaluated(pieces, every) * step - exact)
    reach = np.full(len(every), unit * (0.5 + 2.0 ** (bits - 22)))
    reach[0], reach[-1] = max(reach[0], first * unit - domain[0]), max(reach[-1], domain[1] - last * unit)
    below, above = np.maximum(every * unit - reach, domain[0]), np.minimum(every * unit + reach, domain[1])
    between = function.first(np.minimum(below, every * unit), np.maximum(above, every * unit)) * reach
    bound = float((off + between).max()) * (1 + 1e-6)
    return Approximation(function.name, "integer", pieces, bits=bits, units=(unit, step), bound=bound)


def whole(operation: str, bits: int, domain: tuple[float, float] | None) -> Approximation:
    """Softmax, or a normalisation, in integers."""
    if operation == "softmax":
        bound = softmax_bound(bits)
        unit = 2.0 ** -(bits + 4)
        return Approximation(operation, "integer", bits=bits, units=(unit, 2.0**-bits), bound=bound, outside=bound)
    low, high = (-8.0, 8.0) if domain is None else domain
    unit = float(np.float32(max(abs(low), abs(high)) / (2**15 - 1)))
    return Approximation(operation, "integer", bits=bits, units=(unit, 2.0 ** -(bits - 3)))


def softmax_bound(bits: int, row: int = ROW) -> float:
    """Of rows of at most ``row`` entries, for any numbers: every exponential that can occur is tried.

    With powers within ``e (1 +- r) +- t`` of the exact ones, whose sum is at least 1, a share moves by at most
    ``r / (2 (1 - r)) + t (1 + row)``, and is rounded to half a unit.
    """
    places = bits + 4
    levels = np.arange((22 << places) + 1)
    found = exponential(levels, places) * 2.0**-POWER
    tie = 0.5 + 22 * 2.0 ** (places - 23)  # a difference in float32 may fall to the other side of a tie
    exact = [np.exp(-(levels + off) / 2.0**places) for off in (-tie, tie)]
    dropped = 2.0**-POWER
    share = max(float((np.abs(found - e) / e - dropped / e).max()) for e in exact)
    rest = float(np.exp(-22.0))  # what lies beyond is at most that
    return (share / (2 * (1 - share)) + (dropped + rest) * (1 + row) * 1.01 + 2.0 ** -(bits + 1)) * (1 + 1e-6)
