"""How much each output channel of each layer matters: one number per channel, larger where it matters more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from glob import escape
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError, RecipeError, did_you_mean
from fewbits.measure.curvature import curvature, sensitivity
from fewbits.measure.curvature.gradients import Passes
from fewbits.task import Batch, Classification, Task, first_of, handing, main_output, measured_over, run, samples_in
from fewbits.task.batches import check_gradient
from fewbits.task.structure import structure_of
from fewbits.weights import NORMS, channel_axes, is_turned, layer_weights, places, turned

Batches = Iterable[Any]
ChannelScores = dict[str, Tensor]


def by_curvature(model: nn.Module, batches: Batches, *, estimator: str = "sketched", seed: int = 0) -> ChannelScores:
    """``tr(H_cc) / (2 p_c) ||w_c||^2``: the loss that removing the channel costs, after HAP (arXiv 2101.08940) and EHAP
    (arXiv 2306.07030). Estimators: see :func:`fewbits.measure.curvature.curvature`."""
    weights = layer_weights(model)
    found = curvature(model, batches, per="channel", estimator=estimator, include=map(escape, weights), seed=seed)
    return sensitivity(found, weights)


def by_magnitude(model: nn.Module, *, order: int = 2) -> ChannelScores:
    """``||w_c||`` over the mean of its layer, since norms of layers of different sizes do not compare.

    Within a layer: Li et al. 2017, arXiv 1608.08710. ``order`` is 1 or 2.
    """
    weights = places(model)
    rows = {name: weights[name][0].tensor.detach().movedim(axis, 0) for name, axis in channel_axes(model).items()}
    norms = {name: w.flatten(1).norm(order, dim=1) for name, w in rows.items()}
    return {name: norm / norm.mean().clamp_min(1e-30) for name, norm in norms.items()}


def by_taylor(model: nn.Module, batches: Batches, *, task: Task | None = None) -> ChannelScores:
    """``(sum over c of w dL/dw)^2``, mean over batches (Molchanov et al. 2019, arXiv 1906.10771, equation 8)."""
    axes, known, task = channel_axes(model), places(model), task or Classification()
    weights = {name: known[name][0].tensor for name in axes}
    place = next(iter(weights.values())).device
    totals = {name: torch.zeros(w.shape[axes[name]], device=w.device) for name, w in weights.items()}
    count = 0
    frozen = [w.requires_grad_(True) for w in weights.values() if not w.requires_grad]
    try:
        with evaluating(model), torch.enable_grad():
            data = measured_over(model, batches)
            for batch in data:
                batch = send_to_device(batch, place)
                with handing(model, batch[0], data.place):
                    answers = task.forward(model, batch)
                with data.naming():
                    task.check(answers, batch)
                loss = task.loss(answers, batch)
                check_gradient(model, loss)
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                    if gradient is not None:
                        share = (w.detach() * gradient).movedim(axes[name], 0)
                        totals[name] += share.flatten(1).sum(1).square()
                count += 1
    finally:
        for w in frozen:
            w.requires_grad_(False)
    if not count:
        raise DataError("taylor needs at least one batch; the batches are empty")
    return {name: total / count for name, total in totals.items()}


def by_output(model: nn.Module, batches: Batches, *, draws: int = 1, seed: int = 0) -> ChannelScores:
    """``y_c^T H y_c / 2``, mean over samples: what zeroing a channel's whole output y_c costs to second order, with the
    Gauss-Newton matrix H of that output. (Ours.)

    EHAP's trace is this form averaged over all directions that the weights could point in; here the direction is
    known, so one derivative per sample and channel is enough: ``(dl_n/dg_c)^2 / 2`` for a gate g_c on the channel and
    the mixed losses l_n of the sketched estimator (:func:`fewbits.measure.curvature.curvature`). The gate is behind the
    batch normalisation where one follows a layer, since its shift goes with the channel.

    Args:
        draws: passes per batch.
    """
    generator = torch.Generator().manual_seed(seed)
    outputs: dict[str, list[Tensor]] = {}
    handles: list[Any] = []

    def gate(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            if not output.requires_grad:
                output.requires_grad_(True)
            outputs.setdefault(name, []).append(output)
            return output.clone()  # what follows may write in place

        return hook

    place = next(model.parameters()).device
    totals: dict[str, Tensor] = {}
    samples = 0
    try:
        with evaluating(model), torch.enable_grad():
            for batch in measured_over(model, batches):
                outputs.clear()
                inputs, targets = send_to_device(batch, place)
                for name, path in _gated(model, inputs).items() if not handles else ():
                    handles.append(model.get_submodule(path).register_forward_hook(gate(name)))
                logits = main_output(run(model, inputs))
                samples += samples_in(inputs)
                for loss, again in Passes("sketched", draws, generator).losses(logits, targets):
                    flat = [y for ys in outputs.values() for y in ys]
                    slopes = iter(torch.autograd.grad(loss, flat, retain_graph=again))
                    for name, ys in outputs.items():
                        layer = model.get_submodule(name.removesuffix(".weight"))
                        axis = -1 if isinstance(layer, nn.Linear) or is_turned(layer) else 1
                        moved = [_summed((y.detach() * next(slopes)).movedim(axis, 1)) for y in ys]
                        cost = sum(moved).square().sum(0) / (2 * draws)  # type: ignore[union-attr]
                        totals[name] = totals[name] + cost if name in totals else cost
    finally:
        for handle in handles:
            handle.remove()
    if not samples:
        raise DataError("the criterion needs at least one sample; the batches are empty")
    return {name: total / samples for name, total in totals.items()}


def _summed(products: Tensor) -> Tensor:
    """Over all places: ``[n, channels, ...]`` to ``[n, channels]``."""
    return products.reshape(*products.shape[:2], -1).sum(2)


def _gated(model: nn.Module, inputs: Any) -> dict[str, str]:
    """``{weight name: path of the layer, or of the only batch normalisation that its output goes to}``."""
    weights = set(layer_weights(model))
    found: dict[str, str] = {}
    for node in structure_of(model, inputs).nodes:
        if node.op == "call_module" and f"{node.target}.weight" in weights:
            users = list(node.users)
            norm = len(users) == 1 and users[0].op == "call_module"
            norm = norm and isinstance(model.get_submodule(str(users[0].target)), NORMS)
            found.setdefault(f"{node.target}.weight", str(users[0].target if norm else node.target))
    for path in turned(model):  # a tracer looks into them
        if f"{path}.weight" in weights:
            found.setdefault(f"{path}.weight", path)
    return found


def by_chance(model: nn.Module, *, seed: int = 0) -> ChannelScores:
    """Uniform numbers: the control that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    known = places(model)
    sizes = {name: known[name][0].tensor.shape[axis] for name, axis in channel_axes(model).items()}
    return {name: torch.rand(size, generator=generator) for name, size in sizes.items()}


CRITERIA: Mapping[str, Callable[[nn.Module, Batches, int, Task], ChannelScores]] = {
    "curvature": lambda model, batches, seed, task: by_curvature(model, batches, seed=seed),
    "output": lambda model, batches, seed, task: by_output(model, batches, seed=seed),
    "magnitude": lambda model, batches, seed, task: by_magnitude(model),
    "l1": lambda model, batches, seed, task: by_magnitude(model, order=1),
    "taylor": lambda model, batches, seed, task: by_taylor(model, batches, task=task),
    "random": lambda model, batches, seed, task: by_chance(model, seed=seed),
}

OF_CLASSES = ("curvature", "output")
"""Criteria made for cross-entropy with one class per sample."""


def criterion(
    name: str, model: nn.Module, batches: Batches, *, seed: int = 0, task: Task | None = None
) -> ChannelScores:
    """Scores ``{weight name: [O]}`` by the name of a criterion, see :data:`CRITERIA`; ``batches`` on training data.

    Raises:
        RecipeError: an unknown name, or a criterion that is not for this task.
        DataError, UnsupportedError, NonFiniteError: as the criterion.
    """
    if name not in CRITERIA:
        raise RecipeError(
            f"no criterion is called {name!r}{did_you_mean(name, CRITERIA)} (known: {', '.join(CRITERIA)})"
        )
    task = task or Classification()
    if name in OF_CLASSES and type(task) is not Classification:
        raise RecipeError(
            f"criterion {name} is for classification, and the task is {task.name}: take taylor, or magnitude"
        )
    return CRITERIA[name](model, batches, seed, task)


def first_samples(batches: Batches, count: int) -> Iterator[Any]:
    """The first ``count`` samples, in the batches that they come in; fewer if there are no more."""
    for batch in batches:
        if count <= 0:
            return
        size = samples_in(batch[0])
        yield batch if size <= count else Batch(*(first_of(part, count) for part in batch))
        count -= size
