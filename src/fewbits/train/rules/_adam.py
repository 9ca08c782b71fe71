"""Adam over tensors that are no parameters of the network: what rules learn beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Moments = dict[str, Any]
"""``{"steps": count, "first": {name: tensor}, "second": {name: tensor}}``"""


def begun(tensors: Mapping[str, Tensor]) -> Moments:
    """Moments before the first step."""
    return {"steps": 0, **{m: {name: torch.zeros_like(t) for name, t in tensors.items()} for m in ("first", "second")}}


@torch.no_grad()
def step(
    tensors: Mapping[str, Tensor],
    slopes: Mapping[str, Tensor],
    moments: Moments,
    lr: float,
    mean: Callable[[Tensor], Tensor],
    decay: float = 0.0,
) -> None:
    """One step down the slopes, in place (Kingma and Ba 2015, with their constants).

    Args:
        mean: of slopes over processes. decay: times the tensor, added to its slope.
    """
    moments["steps"] += 1
    done = moments["steps"]
    for name, slope in slopes.items():
        tensor, first, second = tensors[name], moments["first"][name], moments["second"][name]
        slope = mean(slope.float()) + decay * tensor
        first.lerp_(slope, 0.1)
        second.lerp_(slope.square(), 0.001)
        tensor.sub_(lr * (first / (1 - 0.9**done)) / ((second / (1 - 0.999**done)).sqrt() + 1e-8))
