"""Which channels of a network can only be removed together, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fewbits.channel_masks import ChannelMasks

FIXED = -1
"""Instead of a unit: the channel stays whatever happens."""


@dataclass(frozen=True, eq=False)
class Dependencies:
    """The removable units of a network. A unit is a set of channels of several tensors, all removed or none.

    Attributes:
        axes: ``{tensor name: units along each dimension}``, int64 vectors of the dimension's size with the number of
            the unit that each index belongs to, or -1 where it stays; ``None`` for a dimension without channels.
        paddings: ``{path of a layer that pads channels with zeros: units of those before and behind}``.
        outputs: names of the weights of layers, in execution order: dimension 0 of each are its output channels, or
            the hidden units of a recurrent layer, once for each gate.
        count: number of units.
        fixed: ``{weight name: why some or all of its output channels stay}``.
        products: of each product of two values, as attention has them: the units along the axis along which channels
            go, and the multiplications of each index there, for one sample.
        turned: those of ``outputs`` that have their output channels along dimension 1, as transformers' ``Conv1D``.
    """

    axes: Mapping[str, tuple[Tensor | None, ...]]
    paddings: Mapping[str, tuple[Tensor, Tensor]]
    outputs: tuple[str, ...]
    count: int
    fixed: Mapping[str, str]
    products: tuple[tuple[Tensor, int], ...] = ()
    turned: frozenset[str] = frozenset()

    def axis(self, name: str) -> int:
        """The dimension of a layer's weight that has its output channels."""
        return int(name in self.turned)

    def units(self, name: str) -> Tensor | None:
        """The units of a layer's output channels; ``None`` if all stay."""
        return self.axes[name][self.axis(name)] if name in self.axes else None

    def members(self, unit: int) -> set[tuple[str, int, int]]:
        """All ``(tensor name, dimension, index)`` that go with a unit."""
        return {
            (name, dim, i)
            for name, vectors in self.axes.items()
            for dim, vector in enumerate(vectors)
            if vector is not None
            for i in torch.nonzero(vector == unit).flatten().tolist()
        }

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Units of the same dimensions of the same tensors, for example all channels of a residual stream."""
        where: dict[int, list[tuple[str, int]]] = {}
        for name, vectors in self.axes.items():
            for dim, vector in enumerate(vectors):
                if vector is not None:
                    for unit in torch.unique(vector[vector != FIXED]).tolist():
                        where.setdefault(unit, []).append((name, dim))
        found: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for unit in range(self.count):
            found.setdefault(tuple(where[unit]), []).append(unit)
        return tuple(map(tuple, found.values()))

    def without(self, removed: Sequence[int]) -> ChannelMasks:
        """What is left of each tensor without these units."""
        gone = torch.zeros(self.count + 1, dtype=torch.bool)  # the last place is that of FIXED, -1
        gone[list(removed)] = True
        kept = {
            name: tuple(None if units is None else ~gone[units] for units in vectors)
            for name, vectors in self.axes.items()
        }
        paddings = {
            path: (int((~gone[before]).sum()), int((~gone[after]).sum()))
            for path, (before, after) in self.paddings.items()
            if bool(gone[before].any() or gone[after].any())
        }
        return ChannelMasks(kept, paddings)
