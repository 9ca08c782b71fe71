"""Tiny spaces and measures that the tests of searches share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewbits.search.layer_rates import Evaluator, RateSpace, Targets
from fewbits.search.layer_rates._space import Kept


def weights(sizes: tuple[int, ...] = (40, 60)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {f"layer{i}": torch.randn(size, generator=generator) for i, size in enumerate(sizes)}


def smooth(space: RateSpace, costs: tuple[float, ...]) -> Callable[[Kept], float]:
    """Accuracy that falls with the square of each layer's sparsity, by another amount in each layer."""

    def measure(kept: Kept) -> float:
        rates = space.rates(kept).values()
        return 100 - sum(cost * rate**2 for cost, rate in zip(costs, rates, strict=True))

    return measure


def evaluator(
    budget: int = 1000,
    costs: tuple[float, ...] = (30.0, 5.0),
    sparsity: float = 0.9,
    min_kept: int = 0,
    **options: bool,
) -> Evaluator:
    space = RateSpace(weights(tuple([40, 60, 30, 50][: len(costs)])), min_kept)
    return Evaluator(space, smooth(space, costs), Targets(99.0, sparsity), budget, **options)
