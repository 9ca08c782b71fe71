"""Generalized diagonals: which shifts of the input a matrix needs, and how few rotations make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fewbits.hardware.packing.layout import Layout, Spread


class Placement(Protocol):
    """Where a layer's partial sums lie, and how they are folded: a :class:`Spread` or a :class:`Grid`."""

    @property
    def slots(self) -> int:
        """Of the ciphertext."""

    @property
    def outputs(self) -> int:
        """Of the layer."""

    @property
    def reach(self) -> int:
        """Slots that partial sums are spread over; what is in them is repeated in all others."""

    @property
    def folds(self) -> tuple[int, ...]:
        """Rotations that are added, one after the other."""

    def partial(self) -> np.ndarray:
        """Whose partial sum lies in each slot, int [slots]."""

    def layout(self) -> Layout:
        """What lies where after the folds."""


@dataclass(frozen=True)
class Split:
    """Shifts by babies and giants: each shift is ``baby + giant``, modulo the slots (baby-step giant-step).

    Attributes:
        terms: by giant, the babies that are added up before the sum is rotated by the giant.
    """

    terms: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def babies(self) -> tuple[int, ...]:
        """Rotations of the input, without the one by zero."""
        return tuple(sorted({baby for _, babies in self.terms for baby in babies} - {0}))

    @property
    def giants(self) -> tuple[int, ...]:
        """Rotations of sums, without the one by zero."""
        return tuple(sorted({giant for giant, _ in self.terms} - {0}))

    @property
    def rotations(self) -> int:
        """How many there are."""
        return len(self.babies) + len(self.giants)

    @property
    def products(self) -> int:
        """One for each shift."""
        return sum(len(babies) for _, babies in self.terms)


def split(shifts: np.ndarray, slots: int, bases: tuple[int, ...] = ()) -> Split:
    """The split into babies and giants with the fewest rotations.

    Args:
        shifts: int [n], different, 0..slots - 1. bases: further sizes of a giant step to try.
    """
    shifts = np.sort(np.asarray(shifts, int) % slots)
    if not len(shifts):
        return Split(())
    unit = int(np.gcd.reduce(np.append(shifts, slots)))
    few = min(int(shifts[-1]) // unit + 2, 4 * int(np.sqrt(len(shifts))) + 8)
    tried = {unit * count for count in range(1, few)} | {1 << bit for bit in range(slots.bit_length())} | set(bases)
    best: tuple[int, np.ndarray] | None = None
    for base in sorted(tried):
        for back in {0, base // 2}:  # babies from -base / 2 to base / 2 suit windows around zero
            babies = (shifts + back) % base - back
            giants = (shifts - babies) % slots
            cost = len(np.union1d(babies, 0)) + len(np.union1d(giants, 0))
            if best is None or cost < best[0]:
                best = cost, babies
    assert best is not None
    babies = best[1]
    giants = (shifts - babies) % slots
    return Split(tuple((int(g), tuple(int(b) for b in babies[giants == g] % slots)) for g in np.unique(giants)))


def covering(source: Layout, spread: Spread, most: int | None = None) -> np.ndarray | None:
    """The shortest run of equally spaced shifts that brings every input to every output, int [n].

    Args:
        most: give up beyond so many shifts.

    Returns:
        ``None`` where no such run is short enough.
    """
    slots, least = spread.slots, fewest(source, spread)
    limit = slots if most is None else min(slots, most)
    partial = spread.partial()
    used = np.flatnonzero(partial >= 0)
    places = used[np.argsort(partial[used], kind="stable")].reshape(spread.outputs, -1)
    probes = sorted({0, spread.outputs // 2, spread.outputs - 1})
    best: np.ndarray | None = None
    space = 1
    while space < slots:
        room = min(limit if best is None else len(best) - 1, slots // space)
        if _longest(source, places[probes], space, room) <= room:  # most outputs are alike
            count = _longest(source, places, space, room)
            if count <= room:
                best = np.arange(count) * space
                if count <= least:
                    break
        space *= 2
    return best


def fewest(source: Layout, spread: Spread) -> int:
    """No fewer shifts than these bring all pairs together: each reaches one input in each slot of a partial sum."""
    slots = min(spread.outputs * spread.copies, int((source.numbers >= 0).sum()) if not spread.span else spread.reach)
    return max(1, -(-source.size // spread.copies), -(-source.size * spread.outputs // max(1, slots)))


def _longest(source: Layout, places: np.ndarray, space: int, limit: int) -> int:
    """How many shifts of a run the neediest output needs, ``limit + 1`` where more than ``limit``.

    Args:
        places: int [outputs, copies], the slots of each output's partial sums.
    """
    back = np.arange(limit)[::-1]  # the first shift is written last, and wins
    longest = 0
    for each in places:
        number = source.numbers[(each[None, :] + back[:, None] * space) % source.slots]
        first = np.full(source.size + 2, limit)  # and two that slots without a number write to
        first[number] = back[:, None]
        longest = max(longest, int(first[: source.size].max()) + 1)
        if longest > limit:
            break
    return longest


def diagonals(source: Layout, spread: Placement, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """To which shift, and to which slot, each weight of a matrix goes.

    Returns:
        Two arrays int [outputs, inputs]: the place of its shift in ``shifts``, and the slot; -1 where no shift reaches.
    """
    which = np.full((spread.outputs, source.size), -1)
    where = np.full((spread.outputs, source.size), -1)
    partial = spread.partial()
    places = np.flatnonzero(partial >= 0)
    for place, shift in reversed(list(enumerate(shifts))):  # the first shift wins
        number = source.numbers[(places + shift) % source.slots]
        seen = number >= 0
        pair = partial[places[seen]], number[seen]
        which[pair], where[pair] = place, places[seen]
    return which, where
