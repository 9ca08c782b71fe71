"""Scores of weights over batches: one number per weight, larger where the weight matters more.

Every measure has the same shape, ``measure(model, batches) -> Scores``; relevance is in its own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError
from fewbits.task import Classification, Task, handing, measured_over, samples_in
from fewbits.task.batches import check_gradient
from fewbits.weights import select

Scores = dict[str, Tensor]
Batches = Iterable[Any]


def magnitude(model: nn.Module, batches: Batches = ()) -> Scores:
    """``|w|``. Needs no data."""
    return {name: w.detach().abs() for name, w in select(model).items()}


def random(model: nn.Module, batches: Batches = (), *, seed: int = 0) -> Scores:
    """Uniform numbers in [0, 1): the control that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w.shape, generator=generator).to(w.device) for name, w in select(model).items()}


def taylor(model: nn.Module, batches: Batches, *, task: Task | None = None) -> Scores:
    """``|w dL/dw|``: first-order change of the loss when the weight is zeroed (Molchanov et al. 2017)."""
    means = _mean(model, batches, lambda gradient: gradient, task)
    return {name: (w.detach() * means[name]).abs() for name, w in select(model).items()}


def fisher(model: nn.Module, batches: Batches, *, task: Task | None = None) -> Scores:
    """Mean over batches of the squared mean gradient: the batch-wise empirical Fisher diagonal.

    With batches of one sample it is the empirical Fisher information itself; larger batches average gradients
    before squaring and so underestimate it by up to their size. The given labels make a network that fits its data
    seem flat; :func:`fewbits.measure.curvature` does not need them.
    """
    return _mean(model, batches, torch.square, task)


def _mean(model: nn.Module, batches: Batches, term: Callable[[Tensor], Tensor], task: Task | None) -> Scores:
    """Mean over samples of ``term(gradient of the batch's mean loss)``, in evaluation mode."""
    place, task = next(model.parameters()).device, task or Classification()
    samples = 0
    # Inside, a weight that carries a plan is one tensor in every forward pass, so it has a gradient like any.
    with evaluating(model), torch.enable_grad():
        weights = select(model)
        frozen = [w for w in weights.values() if not w.requires_grad]
        for w in frozen:
            w.requires_grad_(True)
        totals = {name: torch.zeros_like(w) for name, w in weights.items()}
        try:
            data = measured_over(model, batches)
            for batch in data:
                batch = send_to_device(batch, place)
                with handing(model, batch[0], data.place):
                    outputs = task.forward(model, batch)
                with data.naming():
                    task.check(outputs, batch)
                loss, count = task.loss(outputs, batch), samples_in(batch[0])
                check_gradient(model, loss)
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
                for name, gradient in zip(weights, gradients, strict=True):
                    totals[name] += term(gradient) * count
                samples += count
        finally:
            for w in frozen:
                w.requires_grad_(False)
    if samples == 0:
        raise DataError("gradient scores need at least one sample; the batches are empty")
    return {name: (total / samples).detach() for name, total in totals.items()}
