"""Numbers that stay floats, in fewer bits."""

from __future__ import annotations

import torch
from torch import Tensor


def shortened(data: Tensor, floats: torch.dtype, significand: int | None = None) -> Tensor:
    """A float32 tensor as a file keeps it; any other as it is.

    Args:
        floats: type of the numbers, such as ``torch.float16``.
        significand: how many significant bits each number keeps, the leading one included; ``None``: all that the
            type has. What is left are zeros at the end, which the coder codes for little.

    Returns:
        In float32, if a number would be beyond the range of ``floats``; not rounded, if that took one beyond it.
    """
    if data.dtype != torch.float32:
        return data
    short = data if significand is None else rounded(data, significand)
    for candidate in (short.to(floats), data.to(floats), short):
        if torch.isfinite(candidate).all():
            return candidate
    return data


def rounded(data: Tensor, significand: int) -> Tensor:
    """Each number to the nearest one of so many significant bits, ties to even.

    With 11, 8 and 4 bits these are the numbers of float16, bfloat16 and float8 (E4M3) within their range.
    """
    mantissa, exponent = torch.frexp(data.double())  # doubles reach beyond what a rounding up can exceed
    whole = torch.round(torch.ldexp(mantissa, torch.tensor(significand)))
    return torch.ldexp(whole, exponent - significand).to(data.dtype)
