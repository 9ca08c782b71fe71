"""A guess about channels is tried out: one unit of each group goes, and outputs are those of a network with zeros."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.channels.dependencies import Dependencies
from fewbits.channels.surgery import prune_channels, zero_channels
from fewbits.task.batches import run_apart, tensors_in

SAME = 1e-3  # of outputs, relative to the largest: float32 sums in another order


def sound(model: nn.Module, found: Dependencies, inputs: Any) -> bool:
    """Whether the network without one unit of each group is the one with zeros there."""
    channels = found.without([group[0] for group in found.groups if len(group) > 1])
    small, zeroed = copy.deepcopy(model), copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    given = inputs
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and not bool(inputs.any()):
        given = torch.randn(inputs.shape, generator=generator).to(inputs)
    prune_channels(small, channels)
    zero_channels(zeroed, channels)
    try:
        mine, wanted = (list(tensors_in(run_apart(net, given))) for net in (small, zeroed))
    except Exception:  # whatever the user's operation raises where sizes do not fit
        return False
    return len(mine) == len(wanted) and all(map(_same, mine, wanted))


def _same(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape or not found.numel():
        return found.shape == wanted.shape
    off = (found.double() - wanted.double()).abs().max()  # masks among the outputs are numbers, too
    return bool(off <= SAME * wanted.double().abs().max())
