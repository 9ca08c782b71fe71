"""What a search chooses from: how many weights each layer keeps, by magnitude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fewbits.assign.pruning import singles
from fewbits.errors import RecipeError
from fewbits.recipe.notation import min_kept_of

Kept = tuple[int, ...]
"""Weights that each layer keeps, in the order of the layers: its largest ones."""


class RateSpace:
    """The prunable layers of a network, as numbers.

    A layer keeps its weights of largest magnitude; among equal ones the higher indices, so that a choice is the same
    mask that :func:`fewbits.assign.layerwise` makes of its rates.

    Args:
        weights: dense weights by name; they are copied, not changed.
        min_kept: so many weights of each layer stay (a smaller layer whole), or so many percent of all of them
            (``"0.02%"``); one weight stays in any case.

    Raises:
        NonFiniteError: naming the layer. RecipeError: no weights, or no such floor.
    """

    def __init__(self, weights: Mapping[str, Tensor], min_kept: int | str = 0) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in singles(weights).items()}
        if not self.weights or not all(w.numel() for w in self.weights.values()):
            raise RecipeError("a search needs layers, and weights in each of them")
        self.names = tuple(self.weights)
        self.sizes = tuple(weight.numel() for weight in self.weights.values())
        self.total = sum(self.sizes)
        sigma = min_kept_of(min_kept, self.total)
        self.floors = tuple(max(1, min(size, sigma)) for size in self.sizes)
        self.stds = tuple(float(w.double().std(correction=0)) for w in self.weights.values())
        self._ascending: list[Tensor] = []
        self._ranks: list[Tensor] = []
        for weight in self.weights.values():
            magnitudes, order = weight.abs().reshape(-1).sort(stable=True)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(order), device=order.device)
            self._ascending.append(magnitudes.double())
            self._ranks.append(rank.view(weight.shape))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dense(self) -> Kept:
        """Every weight kept."""
        return self.sizes

    def above(self, layer: int, alpha: float) -> int:
        """Weights of a layer with ``|w| >= alpha * std`` of its dense weights (Han et al. 2015), at least its floor."""
        ascending = self._ascending[layer]
        threshold = torch.tensor(alpha * self.stds[layer], dtype=ascending.dtype, device=ascending.device)
        below = int(torch.searchsorted(ascending, threshold))
        return max(self.floors[layer], self.sizes[layer] - below)

    def clipped(self, kept: Sequence[int]) -> Kept:
        """The choice nearest to ``kept`` that obeys the floors."""
        return tuple(max(f, min(s, k)) for k, f, s in zip(kept, self.floors, self.sizes, strict=True))

    def check(self, kept: Kept) -> None:
        """Raise RecipeError for a choice that is none."""
        if len(kept) != len(self):
            raise RecipeError(f"{len(kept)} numbers of weights do not fit {len(self)} layers")
        for name, k, low, high in zip(self.names, kept, self.floors, self.sizes, strict=True):
            if not low <= k <= high:
                raise RecipeError(f"{name!r} can keep {low:,} to {high:,} weights, not {k:,}")

    def sparsity(self, kept: Kept) -> float:
        """Share of zeros over all layers, 0..1."""
        return 1 - sum(kept) / self.total

    def rates(self, kept: Kept) -> dict[str, float]:
        """Sparsity by layer."""
        return {n: 1 - k / s for n, k, s in zip(self.names, kept, self.sizes, strict=True)}

    def mask(self, layer: int, kept: int) -> Tensor:
        """True for the survivors, of the weight's shape."""
        return self._ranks[layer] >= self.sizes[layer] - kept
