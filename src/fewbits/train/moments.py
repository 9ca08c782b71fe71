"""Mean and covariance of rows that come in batches."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class Moments:
    """Sums of rows and of their products, in float64.

    Args:
        around: a vector near the mean: sums of squares around it lose fewer digits. Of several processes all need the
            same.
    """

    def __init__(self, around: Tensor) -> None:
        self.around = around.double()
        self.count = torch.zeros((), dtype=torch.float64, device=around.device)
        self.sum = torch.zeros_like(self.around)
        self.squares = self.around.new_zeros(len(around), len(around))

    def add(self, rows: Tensor) -> None:
        """``rows``: ``[n, D]``."""
        rows = rows.double() - self.around
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.squares.addmm_(rows.T, rows)

    def over(self, accelerator: Accelerator) -> Moments:
        """Those of the rows of all processes."""
        if accelerator.num_processes > 1:
            self.count, self.sum, self.squares = (
                accelerator.reduce(t, reduction="sum") for t in (self.count, self.sum, self.squares)
            )
        return self

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """``[D]`` and ``[D, D]``, of the population."""
        mean = self.sum / self.count
        return self.around + mean, self.squares / self.count - torch.outer(mean, mean)
