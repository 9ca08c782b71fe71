"""Shifts for a matrix that is mostly zeros, such as a convolution's: the ones that bring the most pairs together."""

from __future__ import annotations

import numpy as np

from fewbits.hardware.packing.layout import Layout

MOST_PAIRS = 1 << 23  # in how many places one of a matrix's weights may go, all weights together


def greedy(source: Layout, partial: np.ndarray, used: np.ndarray) -> np.ndarray | None:
    """Few shifts that bring each output's inputs to one of its slots, the most useful first, then sorted.

    Args:
        source: where inputs lie. partial: int [slots], whose partial sum each slot takes.
        used: bool [outputs, inputs], pairs that are needed.

    Returns:
        int [n], or ``None`` where a pair cannot be brought together, or too many places would have to be looked at.
    """
    slots = source.slots
    outputs, inputs = np.nonzero(used)
    ours, theirs = _places(partial, used.shape[0]), _places(source.numbers, used.shape[1])
    copies = ours.shape[1] * theirs.shape[1]
    if len(outputs) == 0:
        return np.zeros(0, int)
    if len(outputs) * copies > MOST_PAIRS or ours[outputs].min() < 0 or theirs[inputs].min() < 0:
        return None
    shifts = (theirs[inputs][:, None, :] - ours[outputs][:, :, None]) % slots
    shifts = shifts.reshape(len(outputs), copies)
    order = np.argsort(shifts.astype(np.uint16), axis=None, kind="stable")  # of 16 bits by their digits, which is fast
    bounds = np.searchsorted(shifts.ravel()[order], np.arange(slots + 1))
    counts = np.diff(bounds)
    nearness = np.minimum(np.arange(slots), slots - np.arange(slots))
    left = np.ones(len(outputs), bool)
    chosen = []
    while left.any():
        best = counts.max()
        ties = np.flatnonzero(counts == best)
        shift = int(ties[np.argmin(nearness[ties])])
        chosen.append(shift)
        pairs = np.unique(order[bounds[shift] : bounds[shift + 1]] // copies)
        pairs = pairs[left[pairs]]
        left[pairs] = False
        np.subtract.at(counts, shifts[pairs].ravel(), 1)
    return np.sort(np.array(chosen))


def _places(numbers: np.ndarray, size: int) -> np.ndarray:
    """The slots of each number, int [size, copies]; those with fewer copies repeat their last one, -1 without any."""
    slots = np.flatnonzero(numbers >= 0)
    order = slots[np.argsort(numbers[slots], kind="stable")]
    counts = np.bincount(numbers[slots], minlength=size)
    starts = np.cumsum(counts) - counts
    copies = max(1, int(counts.max(initial=0)))
    column = np.minimum(np.arange(copies)[None, :], np.maximum(counts - 1, 0)[:, None])
    found = np.append(order, -1)[np.minimum(starts[:, None] + column, len(order))]
    return np.where(counts[:, None] > 0, found, -1)
