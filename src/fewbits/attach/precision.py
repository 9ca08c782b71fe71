"""Numbers that stay floats, in fewer bits."""

from __future__ import annotations

import torch
from torch import Tensor


def narrowed(data: Tensor, floats: torch.dtype, significand: int | None = None) -> Tensor:
    """A float32 tensor as a file keeps it; any other as it is.

    Args:
        floats: type of the numbers, such as ``torch.float16``.
        significand: how many significant bits each number keeps, the leading one included; ``None``: all that the
            type has. What is left are zeros at the end, which the coder codes for little.

    Returns:
        The same tensor, as it is, if a number would be beyond the range of ``floats``.
    """
    if data.dtype != torch.float32:
        return data
    small = (data if significand is None else rounded(data, significand)).to(floats)
    return small if torch.isfinite(small).all() else data


def rounded(data: Tensor, significand: int) -> Tensor:
    """Each number to the nearest one of so many significant bits, ties to even.

    With 11, 8 and 4 bits these are the numbers of float16, bfloat16 and float8 (E4M3) within their range.
    """
    mantissa, exponent = torch.frexp(data.double())  # doubles reach beyond what a rounding up can exceed
    whole = torch.round(torch.ldexp(mantissa, torch.tensor(significand)))
    return torch.ldexp(whole, exponent - significand).to(data.dtype)
