"""Scores of weights over batches: one number per weight, larger where the weight matters more.

Every measure has the same shape, ``measure(model, batches) -> Scores``; relevance is in its own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import DataError
from fewbits.measure.relevance.measure import check_targets
from fewbits.weights import select

Scores = dict[str, Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]


def magnitude(model: nn.Module, batches: Batches = ()) -> Scores:
    """``|w|``. Needs no data."""
    return {name: w.detach().abs() for name, w in select(model).items()}


def random(model: nn.Module, batches: Batches = (), *, seed: int = 0) -> Scores:
    """Uniform numbers in [0, 1): the control that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w.shape, generator=generator).to(w.device) for name, w in select(model).items()}


def taylor(model: nn.Module, batches: Batches) -> Scores:
    """``|w dL/dw|``: first-order change of the cross-entropy when the weight is zeroed (Molchanov et al. 2017)."""
    weights = select(model)
    totals, samples = _accumulate(model, weights, batches, lambda gradient, n: gradient * n)
    return {name: (weights[name].detach() * totals[name] / samples).abs() for name in weights}


def fisher(model: nn.Module, batches: Batches) -> Scores:
    """Mean over batches of the squared mean gradient: the batch-wise empirical Fisher diagonal.

    With batches of one sample it is the empirical Fisher information itself; larger batches average gradients
    before squaring and so underestimate it by up to their size.
    """
    weights = select(model)
    totals, samples = _accumulate(model, weights, batches, lambda gradient, n: gradient.square() * n)
    return {name: total / samples for name, total in totals.items()}


def _accumulate(
    model: nn.Module, weights: Scores, batches: Batches, term: Callable[[Tensor, int], Tensor]
) -> tuple[Scores, int]:
    place = next(model.parameters())
    totals = {name: torch.zeros_like(w) for name, w in weights.items()}
    was_training, samples = model.training, 0
    model.eval()
    try:
        for x, y in batches:
            logits = model(x.to(place.device))
            check_targets(logits, y)
            loss = F.cross_entropy(logits, y.to(place.device))
            gradients = torch.autograd.grad(loss, list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                totals[name] += term(gradient, len(x))
            samples += len(x)
    finally:
        model.train(was_training)
    if samples == 0:
        raise DataError("gradient scores need at least one sample; the batches are empty")
    return totals, samples
