"""Scores of channels that add up to what removing them was measured to cost."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.channel_masks import ChannelMasks
from fewbits.channels.dependencies import Dependencies
from fewbits.channels.surgery import prune_channels
from fewbits.errors import DataError, MismatchError, NonFiniteError
from fewbits.task import laid_out, main_output, run_laid_out, samples_in
from fewbits.weights import NORMS

LEVELS = 8


def measured(
    model: nn.Module,
    batches: Iterable[Any],
    found: Dependencies,
    scores: Tensor,
    *,
    levels: int = LEVELS,
) -> Tensor:
    """How much each unit matters, on a scale that is the same for all layers.

    A criterion orders the channels of a layer well, but its numbers do not compare between layers, nor add up: of
    sixteen channels that do the same, each one alone costs nothing. So of every group of units the least important
    eighth, two eighths and so on are removed, the rest of the network intact, and the loss is measured: the KL
    divergence of the answers from the whole network's. A unit's score is its share of the lower convex envelope of
    these losses, so the order within a group stays. (Ours; NetAdapt, arXiv 1804.03230, measures layers in this way in a
    greedy search of many steps.) Normalisations take the statistics of each batch meanwhile.

    Args:
        model: the network of ``found``; not changed. Costs a forward pass over ``batches`` per group and level.
        batches: ``(inputs, ...)``; some hundred samples.
        scores: ``[units]``, which order the units of each group.
        levels: parts of each group.

    Returns:
        ``[units]``, float64: mean KL divergence, in nats.

    Raises:
        DataError: no batches, or one sample that a normalisation cannot take the statistics of. NonFiniteError: outputs
            are NaN or infinite (classes of which the network is sure are not). MismatchError: not one score per unit.
    """
    if len(scores) != found.count:
        raise MismatchError(f"the network has {found.count} removable units, and there are {len(scores)} scores")
    place = next(model.parameters()).device
    with evaluating(model):
        inputs = [laid_out(send_to_device(x, place)) for x in _joined([batch[0] for batch in batches])]
        answers = [F.log_softmax(_scores(model, x), 1) for x in inputs]
    if not inputs:
        raise DataError("measuring channels needs at least one batch; the batches are empty")
    result = torch.zeros(found.count, dtype=torch.float64)
    intact = _loss(copy.deepcopy(model), inputs, answers)
    for group in found.groups:
        order = sorted(group, key=lambda unit: (float(scores[unit]), unit))
        points = [(0, intact)]
        for count in sorted({round(len(order) * i / levels) for i in range(1, levels + 1)} - {0}):
            left = found.without(order[:count])
            if count == len(order) and _empties(left):
                break
            small = copy.deepcopy(model)
            prune_channels(small, left)
            points.append((count, _loss(small, inputs, answers)))
        rank = torch.arange(len(order), dtype=torch.float64) / len(order)
        result[order] = _slopes(points, len(order)) + 1e-12 * rank  # equal ones keep the order
    return result


def _joined(inputs: list[Any]) -> list[Any]:
    """A last batch of one sample joins the one before: no statistics can be taken of it."""
    plain = all(isinstance(x, Tensor) for x in inputs)
    if plain and len(inputs) > 1 and len(inputs[-1]) == 1 and inputs[-2].shape[1:] == inputs[-1].shape[1:]:
        return [*inputs[:-2], torch.cat(inputs[-2:])]
    return inputs


def _empties(left: ChannelMasks) -> bool:
    return any(mask is not None and not bool(mask.any()) for masks in left.kept.values() for mask in masks)


def _loss(model: nn.Module, inputs: Sequence[Any], answers: Sequence[Tensor]) -> float:
    """Mean KL divergence from ``answers``, with statistics of the batches. The model's own change."""
    total = samples = 0.0
    with evaluating(model):
        for module in model.modules():
            if isinstance(module, NORMS):
                module.train()
        for x, answer in zip(inputs, answers, strict=True):
            try:
                found = F.log_softmax(_scores(model, x), 1)
            except ValueError as error:  # torch's, of a normalisation with one value per channel
                raise DataError(f"a batch of {samples_in(x)} samples gives no statistics: {error}") from None
            terms = answer.exp() * (answer - found)
            total += float(terms.masked_fill(answer == -torch.inf, 0).sum())  # a class that is never answered
            samples += samples_in(x)
    if not math.isfinite(total):
        raise NonFiniteError("measuring channels: the network's outputs are NaN or infinite")
    return total / samples


def _scores(model: nn.Module, inputs: Any) -> Tensor:
    return main_output(run_laid_out(model, inputs)).float()


def _slopes(points: Sequence[tuple[int, float]], count: int) -> Tensor:
    """Of the lower convex envelope of ``(removed, loss)``, for each of ``count`` units in the order they go.

    Behind the last point the last slope goes on; of a group that cannot go as a whole, one unit always stays.
    """
    hull: list[tuple[int, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    slopes = torch.zeros(count, dtype=torch.float64)
    for left, right in pairwise(hull):
        slopes[left[0] :] = max(0.0, _slope(left, right))
    return slopes


def _slope(left: tuple[int, float], right: tuple[int, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])
