"""Group lasso: groups of weights are drawn to zero as a whole, so that they can fall together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

TINY = 1e-6  # below this root mean square a group is not drawn further


class GroupLasso:
    """``strength * sum over groups of sqrt(size) * ||w||`` (Yuan and Lin 2006, eq. 2.1), by its gradient.

    Args:
        groups: by a weight's name, int64 of its shape, the number of each weight's group.
        strength: of the term. until: share of the training after which it ends.
    """

    def __init__(self, groups: Mapping[str, Tensor], strength: float, until: float) -> None:
        self.groups = {name: number.flatten() for name, number in groups.items()}
        self.strength, self.until = strength, until

    def acts(self, share: float) -> bool:
        """Whether it does at this share of the training."""
        return share < self.until

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Add its gradient to those of the weights that have groups: ``strength * sqrt(size) * w / ||w||``."""
        for name, number in self.groups.items():
            if name not in weights:
                continue
            weight = weights[name]
            number = self.groups[name] = number.to(weight.device)
            sizes = torch.bincount(number).to(weight.dtype)
            power = torch.zeros_like(sizes).index_add_(0, number, weight.flatten() ** 2)
            mean = (power / sizes).sqrt().clamp_min(TINY)
            drawn = self.strength * (weight.flatten() / mean[number]).view_as(weight)
            weight.grad = drawn if weight.grad is None else weight.grad.add_(drawn)
