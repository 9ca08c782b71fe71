"""What each tensor of a network becomes: the artefact that is trained, written, read and reported.

A :class:`Plan` is frozen data and needs no network. Zero is a cluster like any other, so a pruned weight and
a weight quantized to zero are the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import RecipeError

MAX_BITS = 16


@dataclass(frozen=True, eq=False)
class Clustered:
    """A tensor of which every element sits in one of a few clusters.

    Attributes:
        levels: int16 tensor of the weight's shape, on the CPU or any device. Level 0 is the zero cluster.
        step: for a uniform grid, element = ``levels * step`` in float32; ``None`` with a codebook.
        codebook: values of the clusters ``lowest, lowest + 1, ...`` (float32 precision); ``None`` with a step.
        lowest: the level of the codebook's first value (ternary: -1). Unused (0) with a step.
        bits: bit width of the grid: levels lie in ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``.
    """

    levels: Tensor
    bits: int
    step: float | None = None
    codebook: tuple[float, ...] | None = None
    lowest: int = 0

    def __post_init__(self) -> None:
        if (self.step is None) == (self.codebook is None):
            raise RecipeError("a clustered tensor has either a step or a codebook")
        if not 2 <= self.bits <= MAX_BITS:
            raise RecipeError(f"bits must lie in 2..{MAX_BITS}, got {self.bits}")
        if self.levels.dtype != torch.int16:
            raise RecipeError(f"levels must be int16, got {self.levels.dtype}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.levels.shape)

    def values(self) -> Tensor:
        """The float32 tensor that the network computes with, of the weight's shape."""
        if self.codebook is not None:
            table = torch.tensor(self.codebook, dtype=torch.float32, device=self.levels.device)
            return table[self.levels.long() - self.lowest]
        step = torch.tensor(self.step, dtype=torch.float32, device=self.levels.device)
        return self.levels.to(torch.float32) * step


@dataclass(frozen=True, eq=False)
class Dense:
    """A tensor kept as floating-point (or integer) numbers: biases, normalisation, unselected weights.

    Attributes:
        data: the tensor. float16 here means that the file holds 16 bits; ``values()`` is float32 then.
    """

    data: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    def values(self) -> Tensor:
        """The tensor that the network computes with; half-precision entries are widened to float32."""
        return self.data.float() if self.data.dtype in (torch.float16, torch.bfloat16) else self.data


Entry = Clustered | Dense


class Plan(Mapping[str, Entry]):
    """An immutable, ordered mapping from tensor names to what they become."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Plan({len(self)} tensors, {sum(e.values().numel() for e in self.values())} numbers)"

    def updated(self, entries: Mapping[str, Entry]) -> Plan:
        """A new plan in which ``entries`` replace or join the present ones."""
        return Plan({**self._entries, **entries})

    @property
    def clustered(self) -> dict[str, Clustered]:
        """The clustered entries, in order."""
        return {name: e for name, e in self._entries.items() if isinstance(e, Clustered)}

    def tensors(self) -> dict[str, Tensor]:
        """``{name: tensor}`` as the network computes with it: a state dict."""
        return {name: entry.values() for name, entry in self._entries.items()}

    def equals(self, other: Plan) -> bool:
        """Whether both plans have the same names, kinds and exactly the same numbers."""
        if list(self) != list(other):
            return False
        for name, mine in self._entries.items():
            theirs = other[name]
            if type(mine) is not type(theirs) or mine.shape != theirs.shape:
                return False
            a, b = mine.values(), theirs.values()
            if a.dtype != b.dtype or not torch.equal(a.cpu(), b.cpu()):
                return False
        return True
