"""Cells of 2 by 2 pixels whose sums are all that is read: they are folded before products."""

from __future__ import annotations

import numpy as np

from fewbits.hardware.packing.layout import EMPTY, JUNK, Layout


def summed_cells(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The matrix that reads sums of cells, where the given one weighs all pixels of a cell alike.

    Args:
        matrix: float64 [outputs, channels * height * width]. shape: [channels, height, width].

    Returns:
        float64 [outputs, channels * height / 2 * width / 2], or ``None`` where pixels are weighed differently.
    """
    if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
        return None
    channels, height, width = shape
    cells = matrix.reshape(len(matrix), channels, height // 2, 2, width // 2, 2)
    first = cells[:, :, :, :1, :, :1]
    return first.reshape(len(matrix), -1) if (cells == first).all() else None


def cells_of(shape: tuple[int, ...]) -> np.ndarray:
    """The cell of each pixel, int [channels * height * width]."""
    channel, y, x = np.indices(shape).reshape(3, -1)
    return np.asarray((channel * (shape[1] // 2) + y // 2) * (shape[2] // 2) + x // 2)


def folded_cells(source: Layout, shape: tuple[int, ...]) -> tuple[Layout, tuple[int, int]] | None:
    """Where sums of cells lie after two folds, and the folds; ``None`` where two do not add up each cell."""
    cells, slots, width = cells_of(shape), source.slots, shape[2]
    first = source.first()
    right, down = (int(first[place] - first[0]) % slots for place in (1, width))
    numbers = np.append(cells, [-1, -1])  # and two for slots without a number
    slot = np.arange(slots)
    four = np.stack([source.numbers[(slot + shift) % slots] for shift in (0, right, down, right + down)])
    held = numbers[np.where(four >= 0, four, len(cells))]
    ordered = np.sort(four, axis=0)
    whole = (held == held[0]).all(0) & (held[0] >= 0) & (np.diff(ordered, axis=0) > 0).all(0)
    empty = (four == EMPTY).all(0)
    layout = Layout(np.where(whole, held[0], np.where(empty, EMPTY, JUNK)), int(cells.max()) + 1)
    return (layout, (right, down)) if (layout.first() >= 0).all() else None
