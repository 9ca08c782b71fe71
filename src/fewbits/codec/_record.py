"""What the directory of a file says of one tensor, and which sections follow from that."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from fewbits.codec._dense import DTYPES
from fewbits.codec._narrowing import Masks

OWN, SHARED, CONSTANT = 0, 1, 2  # where the numbers are: own section, section of all such tensors, directory
STEP, CODEBOOK, DENSE = 0, 1, 2  # what they are; DENSE + i for DTYPES[i]
MASKED = DENSE + len(DTYPES)  # a mask and numbers; MASKED + i for DTYPES[i], of which the first three will do
SURVIVORS = DTYPES[:3]
NARROWED = 15  # any of these, of which channels were removed; says which, and its own kind
AFFINE = 16  # int8 levels, and a float32 scale for each channel
ALIAS = 17  # another name of a tensor of the file
ALIAS_KIND = (ALIAS >> 4) << 6 | ALIAS & 15
SAME = 18  # of a base's tensor: it is the network's, too
SAME_KIND = (SAME >> 4) << 6 | SAME & 15
ABSENT = 19  # of a base's tensor: the network has none of this name, or one that stands alone in the file
ABSENT_KIND = (ABSENT >> 4) << 6 | ABSENT & 15
OPERATIONS = 20  # no tensor: what the network computes in place of its operations
OPERATIONS_KIND = (OPERATIONS >> 4) << 6 | OPERATIONS & 15

FAMILY_FORM = 3  # of a head: several networks, each a whole file

FLOAT32_MAX = 3.4028234663852886e38


@dataclass(frozen=True)
class Record:
    """What the directory says of one tensor.

    Attributes:
        name, shape: of the tensor.
        storage: ``OWN``, ``SHARED`` or ``CONSTANT``.
        dtype: of the numbers of a dense or masked tensor, else ``None``.
        survivors: of a masked tensor, how many of its elements are kept as numbers; else ``None``.
        axis: of an affine tensor, the dimension that has a scale for each of its places; else ``None``. Its ``dtype``
            is that of the scales.
        bits, step, codebook, lowest: of a clustered tensor, as in :class:`fewbits.plan.Clustered`.
        constant: little-endian bytes of the one element (int16 level if clustered) of a constant tensor;
            empty for an empty tensor.
        kept: of a narrowed tensor, per dimension which indices of a larger one are left, or ``None`` for all.
        place: of a difference, which of the base's tensors it is to; ``None`` for a tensor that stands alone.
        same: whether it is the base's tensor as it is, of which the file says no more.
    """

    name: str
    shape: tuple[int, ...]
    storage: int
    dtype: torch.dtype | None = None
    bits: int = 0
    step: float | None = None
    codebook: tuple[float, ...] | None = None
    lowest: int = 0
    constant: bytes = b""
    survivors: int | None = None
    axis: int | None = None
    kept: Masks | None = None
    place: int | None = None
    same: bool = False

    @property
    def full(self) -> tuple[int, ...]:
        """The shape before channels were removed."""
        if self.kept is None:
            return self.shape
        return tuple(s if m is None else len(m) for s, m in zip(self.shape, self.kept, strict=True))

    @property
    def numbers(self) -> int:
        """How many numbers stand in a section: all elements of a dense tensor, survivors of a masked one, scales."""
        if self.axis is not None:
            return self.shape[self.axis]
        if self.dtype is None or self.storage == CONSTANT:
            return 0
        return self.count if self.survivors is None else self.survivors

    @property
    def has_levels(self) -> bool:
        """Whether a section holds levels, or a mask in which both truth values occur."""
        if self.dtype is None or self.axis is not None:
            return self.storage != CONSTANT
        return self.survivors is not None and 0 < self.survivors < self.count

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return 2 if self.dtype is None else self.dtype.itemsize

    @property
    def span(self) -> tuple[int, int]:
        """Lowest and highest level of a clustered tensor; a mask has levels 0 and 1."""
        if self.survivors is not None:
            return 0, 1
        if self.codebook is not None:
            return self.lowest, self.lowest + len(self.codebook) - 1
        return 1 - 2 ** (self.bits - 1), 2 ** (self.bits - 1) - 1

    @property
    def kind(self) -> int:
        """The kind byte."""
        if self.same:
            return SAME_KIND
        if self.axis is not None:
            what = AFFINE
        elif self.dtype is not None:
            what = (DENSE if self.survivors is None else MASKED) + DTYPES.index(self.dtype)
        else:
            what = STEP if self.step is not None else CODEBOOK
        return (what >> 4) << 6 | self.storage << 4 | what & 15


@dataclass(frozen=True)
class Section:
    """A run of coded bytes: the tensors in it (indices), whether it holds levels, its coder and its length."""

    members: tuple[int, ...]
    levels: bool
    coder: int
    size: int


def grouping(records: list[Record]) -> list[tuple[tuple[int, ...], bool]]:
    """``(which tensors, whether their levels)`` of every section, in file order.

    Levels and masks have sections of their own; the numbers of all ``SHARED`` tensors of one dtype form one, and
    so do the levels of all ``SHARED`` clustered ones, which are differences.
    """
    groups: list[tuple[list[int], bool]] = []
    shared: dict[torch.dtype | None, list[int]] = {}
    for i, record in enumerate(records):
        if record.has_levels:
            together = record.dtype is None and record.storage == SHARED
            if together and None in shared:
                shared[None].append(i)
            else:
                groups.append(([i], True))
                if together:
                    shared[None] = groups[-1][0]
        if not record.numbers:
            continue
        if record.storage == SHARED and record.dtype in shared:
            shared[record.dtype].append(i)
            continue
        groups.append(([i], False))
        if record.storage == SHARED:
            shared[record.dtype] = groups[-1][0]
    return [(tuple(group), levels) for group, levels in groups]


def section_of(members: list[Record]) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Shape, and lowest and highest level, of what a section of levels holds: a tensor, or several in a row."""
    if len(members) == 1:
        return members[0].shape, members[0].span
    spans = [record.span for record in members]
    return (sum(record.count for record in members),), (min(low for low, _ in spans), max(high for _, high in spans))


def overflows(step: float, bits: int) -> bool:
    """Whether the highest level of a grid times this (float32) step is beyond float32."""
    return step * (2 ** (bits - 1) - 1) > FLOAT32_MAX
