"""A map's weights as vectors: for each shift, what every slot is multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fewbits.hardware.packing import Layout, diagonals
from fewbits.private._laid import Laid
from fewbits.private.profile import SENTINEL
from fewbits.private.steps import Affine, Part

Terms = tuple[tuple[int, tuple[tuple[int, np.ndarray], ...]], ...]


@dataclass(frozen=True, eq=False)
class InSlots:
    """A map before it has levels and scales.

    Attributes:
        target: the value that it makes. terms: by source, as :class:`Part` has them. folds: rotations that are added.
        bias: float64 [slots], the sentinel included, or ``None``. slots: of its numbers. free: a slot that is zero.
        before: by source, rotations of it that are added before products.
    """

    target: str
    terms: Mapping[str, Terms]
    folds: tuple[int, ...]
    bias: np.ndarray | None
    slots: tuple[int, ...]
    free: int
    before: Mapping[str, tuple[int, ...]]

    def step(self, level: int, scale: float, product: float, scales: Mapping[str, float], rescale: bool) -> Affine:
        """The step, with products at a level and of a scale, and a result of another where it is rescaled."""
        parts = tuple(
            Part(name, product / scales[name], terms, self.before[name]) for name, terms in self.terms.items()
        )
        return Affine(self.target, parts, self.folds, self.bias, level, scale, rescale)


def in_slots(laid: Laid) -> InSlots:
    """The vectors of a map, those of a giant rotated back by it."""
    slots, terms = laid.spread.slots, {}
    for name, one in laid.reads.items():
        shifts, matrix = laid.shifts[name], one.matrix
        which, where = diagonals(one.layout, laid.spread, shifts)
        vectors = np.zeros((len(shifts), slots))
        used = matrix != 0
        vectors[which[used], where[used]] = matrix[used]
        vectors = np.tile(vectors[:, : laid.spread.reach], (1, slots // laid.spread.reach))
        at = {int(shift): vectors[place] for place, shift in enumerate(shifts)}
        terms[name] = tuple(
            (giant, tuple((baby, np.roll(at[(baby + giant) % slots], giant)) for baby in babies))
            for giant, babies in laid.splits[name].terms
        )
    layout = laid.spread.layout()
    bias = spread_out(laid.map.bias, layout)
    free = int(np.flatnonzero(layout.numbers < 0)[0]) if (layout.numbers < 0).any() else -1
    if laid.map.last:
        bias[free] = SENTINEL
    first = tuple(int(slot) for slot in layout.first())
    before = {name: one.folds for name, one in laid.reads.items()}
    return InSlots(laid.map.target, terms, laid.spread.folds, bias if bias.any() else None, first, free, before)


def spread_out(bias: np.ndarray, layout: Layout) -> np.ndarray:
    """Numbers in their slots, float64 [slots], and zero elsewhere."""
    return np.where(layout.numbers >= 0, np.append(bias, 0.0)[layout.numbers], 0.0)
