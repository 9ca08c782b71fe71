"""Mean and spread of a stream of values, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Sums of values and of their squares, from which come a mean and its standard error.

    Args:
        shape: of one value. device: where the sums are kept, in float64 if the device has it.
    """

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.first = torch.zeros(shape, dtype=self.dtype, device=device)
        self.second = torch.zeros(shape, dtype=self.dtype, device=device)

    def add(self, values: Tensor) -> None:
        """Take the values ``[n, *shape]``."""
        self.add_sums(values.sum(0), values.square().sum(0))

    def add_sums(self, first: Tensor, second: Tensor) -> None:
        """Take sums of values and of squares, each of the shape of one value."""
        self.first += first.to(self.dtype)
        self.second += second.to(self.dtype)

    def mean(self, count: int) -> Tensor:
        """Of ``count`` values."""
        return self.first / count

    def error(self, count: int) -> Tensor:
        """Standard error of that mean from the spread of the values; NaN for a single value, which has none."""
        if count < 2:
            return torch.full_like(self.first, torch.nan)
        spread = (self.second - self.first.square() / count).clamp(min=0) / (count - 1)
        return (spread / count).sqrt()
