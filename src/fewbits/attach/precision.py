"""Numbers that stay floats, in fewer bits: the one place that decides how narrow a tensor may be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DIGITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}
"""Significant bits of each type, the leading one included."""


def shortened(data: Tensor, floats: torch.dtype, significand: int | None = None) -> Tensor:
    """A float32 tensor as a file keeps it; any other as it is.

    Every single number keeps the stated precision, however large or small it is: its relative error is at most
    ``2**-significand``, half a unit in its last place. Where ``floats`` cannot hold one so (beyond its range, or among
    its subnormal numbers), the whole tensor takes the next type that can, rounded to as many bits. The coder codes the
    zeros behind them for little.

    Args:
        floats: type of the numbers, such as ``torch.float16``.
        significand: how many significant bits each number keeps, the leading one included; ``None``: all that the
            type has.

    Returns:
        In ``floats``, in bfloat16 (of up to 8 bits), or in float32. A number that rounding would take to infinity is
        not rounded. What is not finite comes back as it is.
    """
    if data.dtype != torch.float32:
        return data
    digits = DIGITS[floats] if significand is None else min(significand, DIGITS[floats])
    if digits == DIGITS[floats] and _ordinary(data, floats):
        return data.to(floats)  # what follows gives the same, and takes longer
    short = rounded(data, digits)
    short = torch.where(torch.isfinite(short), short, data)
    for narrow in (floats, torch.bfloat16):
        if digits <= DIGITS[narrow] and torch.equal((candidate := short.to(narrow)).float(), short):
            return candidate
    return short


def _ordinary(data: Tensor, floats: torch.dtype) -> bool:
    """Whether all numbers are zero, or within what a type holds in all of its digits."""
    size, limits = data.abs(), torch.finfo(floats)
    return bool((((size >= limits.tiny) & (size <= limits.max)) | (size == 0)).all())


def held_by(data: Tensor, floats: torch.dtype) -> bool:
    """Whether a type holds every number of ``data`` (of more bits) to all of its digits: none too large or too small.

    Args:
        data: in a type of more bits, or as many.
    """
    error = (data.to(floats).to(data.dtype) - data).abs()
    return bool((error <= data.abs() * 2.0 ** -DIGITS[floats]).all())


def rounded(data: Tensor, significand: int) -> Tensor:
    """Each number to the nearest one of so many significant bits, ties to even.

    With 11, 8 and 4 bits these are the numbers of float16, bfloat16 and float8 (E4M3) within their range.
    """
    mantissa, exponent = torch.frexp(data.double())  # doubles reach beyond what a rounding up can exceed
    whole = torch.round(torch.ldexp(mantissa, torch.tensor(significand)))
    return torch.ldexp(whole, exponent - significand).to(data.dtype)


def on_grid(data: Tensor, bits: int) -> tuple[Tensor, float]:
    """int16 levels of so many bits and the step of a tensor that is not all zero, its largest number on the last level.

    The step is the next number of five significant bits, which a file codes for little more than a byte. Rounded to the
    nearest, ties to even: off by half a step at most.
    """
    top = 2 ** (bits - 1) - 1
    mantissa, exponent = math.frexp(float(data.abs().max()) / top)
    step = max(math.ldexp(math.ceil(32 * mantissa), exponent - 5), torch.finfo(torch.float32).tiny)
    levels = torch.round(data.double() / step).clamp_(-top, top)
    return levels.to(torch.int16), step
