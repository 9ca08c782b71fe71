"""How much each output channel of each layer matters: one number per channel, larger where it matters more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError, RecipeError, nearest
from fewbits.measure.curvature import curvature, sensitivity
from fewbits.weights import select

Batches = Iterable[tuple[Tensor, Tensor]]
ChannelScores = dict[str, Tensor]


def by_curvature(model: nn.Module, batches: Batches, *, estimator: str = "sketched", seed: int = 0) -> ChannelScores:
    """``tr(H_cc) / (2 p_c) ||w_c||^2``: the loss that removing the channel costs, after HAP (arXiv 2101.08940) and EHAP
    (arXiv 2306.07030). Estimators: see :func:`fewbits.measure.curvature.curvature`."""
    found = curvature(model, batches, per="channel", estimator=estimator, seed=seed)
    return sensitivity(found, select(model))


def by_magnitude(model: nn.Module, *, order: int = 2) -> ChannelScores:
    """``||w_c||`` over the mean of its layer, since norms of layers of different sizes do not compare (for norms within a
    layer: Li et al. 2017, arXiv 1608.08710). ``order`` 1 or 2."""
    norms = {name: w.detach().flatten(1).norm(order, dim=1) for name, w in select(model).items()}
    return {name: norm / norm.mean().clamp_min(1e-30) for name, norm in norms.items()}


def by_taylor(model: nn.Module, batches: Batches) -> ChannelScores:
    """``(sum over c of w dL/dw)^2``, mean over batches (Molchanov et al. 2019, arXiv 1906.10771, equation 8)."""
    weights = select(model)
    place = next(iter(weights.values())).device
    totals = {name: torch.zeros(len(w), device=w.device) for name, w in weights.items()}
    count = 0
    with evaluating(model), torch.enable_grad():
        for inputs, targets in batches:
            loss = F.cross_entropy(model(inputs.to(place)), targets.to(place))
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is not None:
                    totals[name] += (w.detach() * gradient).flatten(1).sum(1).square()
            count += 1
    if not count:
        raise DataError("taylor needs at least one batch; the batches are empty")
    return {name: total / count for name, total in totals.items()}


def by_chance(model: nn.Module, *, seed: int = 0) -> ChannelScores:
    """Uniform numbers: the control that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(len(w), generator=generator) for name, w in select(model).items()}


CRITERIA: Mapping[str, Callable[[nn.Module, Batches, int], ChannelScores]] = {
    "curvature": lambda model, batches, seed: by_curvature(model, batches, seed=seed),
    "magnitude": lambda model, batches, seed: by_magnitude(model),
    "l1": lambda model, batches, seed: by_magnitude(model, order=1),
    "taylor": lambda model, batches, seed: by_taylor(model, batches),
    "random": lambda model, batches, seed: by_chance(model, seed=seed),
}


def criterion(name: str, model: nn.Module, batches: Batches, *, seed: int = 0) -> ChannelScores:
    """Scores ``{weight name: [O]}`` by the name of a criterion, see :data:`CRITERIA`; ``batches`` on training data.

    Raises:
        RecipeError: an unknown name. DataError, UnsupportedError, NonFiniteError: as the criterion.
    """
    if name not in CRITERIA:
        raise RecipeError(f"no criterion is called {name!r}{nearest(name, CRITERIA)} (known: {', '.join(CRITERIA)})")
    return CRITERIA[name](model, batches, seed)


def first_samples(batches: Batches, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first ``count`` samples, in the batches that they come in; fewer if there are no more."""
    for inputs, targets in batches:
        if count <= 0:
            return
        yield inputs[:count], targets[:count]
        count -= len(targets)
