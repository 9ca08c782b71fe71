"""The arithmetic of integer kernels in NumPy's int64 alone: what every runtime of integers has to give, to the bit.

One reference for networks in integers alone (:mod:`fewbits.int8.alone`) and for the kernels that a ``.tflite`` file is
for (gemmlowp's rounding; Jacob et al. 2018, arXiv 1712.05877, section 2.2). Softmax, normalisation and functions of one
number are those of :func:`fewbits.ops.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]


def multiplier(real: float) -> tuple[int, int]:
    """A real factor as an integer of 31 bits and an exponent."""
    mantissa, exponent = math.frexp(real)
    whole = math.floor(mantissa * 2**31 + 0.5)
    return (whole // 2, exponent + 1) if whole == 2**31 else (whole, exponent)


def twice(x: NDArray[Any], real: float) -> Whole:
    """Rounded after the product, and again after the shift."""
    return doubly(x, *multiplier(real))


def doubly(x: NDArray[Any], whole: int, exponent: int) -> Whole:
    """:func:`twice` with a factor that need not be normalised."""
    product = (x.astype(np.int64) << max(exponent, 0)) * whole
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))
    right = max(-exponent, 0)
    mask = (1 << right) - 1
    found: Whole = (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))
    return found


def once(x: NDArray[Any], real: float) -> Whole:
    """Rounded once, half up."""
    whole, exponent = multiplier(real)
    return rescaled([x.astype(np.int64)], [np.int64(whole)], np.int64(0), 31 - exponent)


def rescaled(values: Sequence[Any], factors: Sequence[Any], offset: Any, shift: int) -> Whole:
    """``(sum_i values_i * factors_i + offset) / 2**shift``, rounded once, half up."""
    total = offset + np.int64((1 << shift) >> 1)
    for value, factor in zip(values, factors, strict=True):
        total = total + value * factor
    found: Whole = total >> np.int64(shift)
    return found
