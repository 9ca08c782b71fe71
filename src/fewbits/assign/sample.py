"""Some rows of every weight, for questions that an assignment of all weights would answer too slowly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.assign.state import LayerState, State

LEAST = 8
"""Rows of a weight at least, if it has as many."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows (along the first dimension) of weights, and an assigner's state about them.

    Attributes:
        weights, state: as an assigner takes them. shares: of each weight's elements, how many are here, in (0, 1].
    """

    weights: Mapping[str, Tensor]
    state: State
    shares: Mapping[str, float]


@torch.no_grad()
def sample(weights: Mapping[str, Tensor], state: State, most: int) -> Sample:
    """About ``most`` elements of weights, in the same share of every one, so that layers keep their proportions.

    Rows are taken at regular distances. Those of the extremes of a weight, and of what the state has for each of its
    elements, are among them: units of lambda and of relevance depend on extremes.

    Args:
        weights: by name. state: of an assigner about them. most: elements; fewer than that are taken as they are.
    """
    total = sum(weight.numel() for weight in weights.values())
    if total <= most:
        return Sample(weights, state, dict.fromkeys(weights, 1.0))
    parts: dict[str, Tensor] = {}
    layers: dict[str, LayerState] = {}
    for name, weight in weights.items():
        rows = _rows(weight, state[name], most / total)
        if rows is None:
            parts[name], layers[name] = weight, state[name]
        else:
            parts[name], layers[name] = weight.detach().index_select(0, rows), state[name].of_rows(rows, weight.shape)
    return Sample(parts, state.updated(layers), {n: parts[n].numel() / max(1, w.numel()) for n, w in weights.items()})


def _rows(weight: Tensor, layer: LayerState, share: float) -> Tensor | None:
    """Which rows are taken; ``None``: all."""
    count = weight.shape[0] if weight.dim() > 1 else 0
    wanted = max(LEAST, round(share * count))
    if wanted >= count or not weight.numel():
        return None
    regular = (torch.arange(wanted, dtype=torch.float64) + 0.5).mul_(count / wanted).long().to(weight.device)
    extremes = []
    for tensor in (weight.detach(), *layer.tensors(weight.shape)):
        flat, row = tensor.reshape(-1), weight.numel() // count
        extremes += [flat.argmin().div(row, rounding_mode="floor"), flat.argmax().div(row, rounding_mode="floor")]
    return torch.cat([regular, torch.stack(extremes).to(weight.device)]).unique()
