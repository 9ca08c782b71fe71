"""Mean and standard error of streams of values, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor


class OverSamples:
    """The error from the spread over samples, each of which gave one value.

    Args:
        shape: of one value. device: where the sums are kept, in float64 if the device has it.
    """

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.first = torch.zeros(shape, dtype=_widest(device), device=device)
        self.second = torch.zeros_like(self.first)

    def add(self, values: Tensor) -> None:
        """Take the values ``[n, *shape]``."""
        self.first += values.sum(0).to(self.first.dtype)
        self.second += values.square().sum(0).to(self.first.dtype)

    def close(self) -> None:
        """A batch has ended; here that means nothing."""

    def mean(self, samples: int) -> Tensor:
        """Of all values that came."""
        return self.first / samples

    def error(self, samples: int) -> Tensor:
        """Standard error of that mean; NaN for a single sample, which has no spread."""
        if samples < 2:
            return torch.full_like(self.first, torch.nan)
        spread = (self.second - self.first.square() / samples).clamp(min=0) / (samples - 1)
        return (spread / samples).sqrt()


class OverDraws:
    """The error from the spread over repeated draws for the same unit, a sample or a batch.

    Units are independent and are not compared with each other, so differences between them count as no error.

    Args:
        shape, device: as of :class:`OverSamples`.
    """

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.total = torch.zeros(shape, dtype=_widest(device), device=device)
        self.variance = torch.zeros_like(self.total)
        self.draws = 0

    def add(self, values: Tensor) -> None:
        """Take one draw of all units of a batch, ``[units, *shape]``, each a sum over the unit's samples."""
        values = values.to(self.total.dtype)
        if self.draws == 0:
            self.first, self.second = torch.zeros_like(values), torch.zeros_like(values)
        self.first += values
        self.second += values.square()
        self.draws += 1

    def close(self) -> None:
        """The batch has ended: the next draw is of other units."""
        if self.draws == 0:
            return
        self.total += self.first.sum(0) / self.draws
        if self.draws < 2:
            self.variance.fill_(torch.nan)
        else:
            spread = (self.second - self.first.square() / self.draws).clamp(min=0) / (self.draws - 1)
            self.variance += spread.sum(0) / self.draws
        self.draws = 0

    def mean(self, samples: int) -> Tensor:
        """Of the draws, per sample."""
        return self.total / samples

    def error(self, samples: int) -> Tensor:
        """Standard error of that mean; NaN where a unit was drawn once."""
        return self.variance.sqrt() / samples


Moments = OverSamples | OverDraws


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
