"""Normalisation per task inside of a segment that several tasks share."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NORMALISING = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class NormPerTask(nn.Module):
    """A normalisation of which every task has its own numbers.

    Attributes:
        each: by task. task: whose numbers the next pass takes; the network sets it.
    """

    def __init__(self, norm: nn.Module, tasks: Iterable[str]) -> None:
        super().__init__()
        self.each = nn.ModuleDict({name: copy.deepcopy(norm) for name in tasks})
        self.task = next(iter(self.each))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.each[self.task](x)
        return found


def per_task(segment: nn.Module, tasks: Iterable[str]) -> nn.Module:
    """The segment with every normalisation in it replaced, in place."""
    if isinstance(segment, NORMALISING):
        return NormPerTask(segment, tasks)
    for module in list(segment.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NORMALISING):
                setattr(module, name, NormPerTask(child, tasks))
    return segment


def norms_in(module: nn.Module) -> Iterator[NormPerTask]:
    """Every normalisation per task in a module."""
    return (part for part in module.modules() if isinstance(part, NormPerTask))
