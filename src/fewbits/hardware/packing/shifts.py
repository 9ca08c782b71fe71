"""Generalized diagonals: which shifts of the input a matrix needs, and how few rotations make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewbits.hardware.packing.layout import Layout, Spread


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
    shifts = np.sort(np.asarray(shifts) % slots)
    unit = int(np.gcd.reduce(np.append(shifts, slots)))
    last = int(shifts[-1]) // unit if len(shifts) else 0
    few = min(last + 2, 4 * int(np.sqrt(len(shifts))) + 8)
    tried = {unit * count for count in range(1, few)} | {1 << bit for bit in range(slots.bit_length())} | set(bases)
    best: tuple[int, int] | None = None
    for base in sorted(tried):
        babies, giants = np.unique(shifts % base), np.unique(shifts - shifts % base)
        cost = int((babies != 0).sum() + (giants != 0).sum())
        if best is None or cost < best[0]:
            best = cost, base
    assert best is not None
    base = best[1]
    giants = shifts - shifts % base
    return Split(tuple((int(g), tuple(int(s) for s in shifts[giants == g] % base)) for g in np.unique(giants)))


def covering(
    source: Layout, spread: Spread, used: np.ndarray | None = None, most: int | None = None
) -> np.ndarray | None:
    """The shortest run of equally spaced shifts that brings every input to every output, int [n].

    Args:
        used: bool [outputs, inputs], pairs that are needed; all of them without.
        most: give up beyond so many shifts.

    Returns:
        ``None`` where no such run is short enough.
    """
    need = np.ones((spread.outputs, source.size), bool) if used is None else used
    partial = spread.partial()
    places = np.flatnonzero(partial >= 0)
    outputs = partial[places]
    least = max(1, -(-int(need.sum(1).max(initial=0)) // spread.copies))
    limit = min(spread.slots, 2 * least + 4 if most is None else most)
    best: np.ndarray | None = None
    space = 1
    while space < spread.slots:
        count = _run(source, need, places, outputs, space, least, limit if best is None else len(best) - 1)
        if count is not None:
            best = np.arange(count) * space
            if count <= least:
                break
        space *= 2
    return best


def _run(
    source: Layout, need: np.ndarray, places: np.ndarray, outputs: np.ndarray, space: int, least: int, limit: int
) -> int | None:
    left = need.copy()
    slots = source.slots
    for count in range(min(limit, slots // space)):
        number = source.numbers[(places + count * space) % slots]
        seen = number >= 0
        left[outputs[seen], number[seen]] = False
        if count + 1 >= least and not left.any():
            return count + 1
    return None


def diagonals(source: Layout, spread: Spread, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
