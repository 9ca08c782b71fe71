"""Where images lie: a block of slots for each channel, row by row, and more channels in the gaps of coarse ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewbits.errors import RecipeError
from fewbits.hardware.packing.layout import EMPTY, Layout


@dataclass(frozen=True)
class Grid:
    """Pixel (y, x) of a channel lies ``y * spacing * row + x * spacing`` behind the beginning of its block.

    Attributes:
        slots: of the ciphertext. channels, height, width: of the image.
        block: slots of a block, a power of two. row: slots of a row of pixels at spacing 1.
        spacing: between pixels, in both directions, of an image that is coarser than the input.
        phases: channels that share a block, one in each place of a gap: 1, or ``spacing ** 2``.
        repeated: partial sums lie in all repetitions of the blocks, and are folded; else there is one repetition.
        cells: 2 where the four pixels of each cell of 2 by 2 lie in four regions, one behind the other, so that two
            folds add them up; a region has the blocks of an image of half the size. Else 1.
    """

    slots: int
    channels: int
    height: int
    width: int
    block: int
    row: int
    spacing: int = 1
    phases: int = 1
    repeated: bool = False
    cells: int = 1

    def __post_init__(self) -> None:
        if self.cells > 1 and (self.spacing > 1 or self.height % self.cells or self.width % self.cells):
            raise RecipeError(f"{self} does not fit")
        last = ((self.height // self.cells - 1) * self.row + self.width // self.cells - 1) * self.spacing
        last += (self.row + 1) * (self.spacing - 1) if self.phases > 1 else 0
        if self.phases not in (1, self.spacing**2) or last >= self.block or self.period > self.slots:
            raise RecipeError(f"{self} does not fit")

    @property
    def outputs(self) -> int:
        """Numbers of the image."""
        return self.channels * self.height * self.width

    @property
    def period(self) -> int:
        """Slots of one repetition."""
        return self.region * self.cells**2

    @property
    def region(self) -> int:
        """Slots of all blocks together, of one pixel of each cell."""
        blocks = -(-self.channels // self.phases)
        return self.block << (blocks - 1).bit_length()

    @property
    def reach(self) -> int:
        """Slots that partial sums are spread over: all."""
        return self.slots

    @property
    def folds(self) -> tuple[int, ...]:
        """Rotations that are added, one after the other."""
        found, step = [], self.period
        while self.repeated and step < self.slots:
            found.append(step)
            step *= 2
        return tuple(found)

    def first(self) -> np.ndarray:
        """The slot of each number in the first repetition, int [outputs]."""
        channel, y, x = np.unravel_index(np.arange(self.outputs), (self.channels, self.height, self.width))
        phase = channel % self.phases
        region, y, x = y % self.cells * self.cells + x % self.cells, y // self.cells, x // self.cells
        down, right = y * self.spacing + phase // self.spacing, x * self.spacing + phase % self.spacing
        return np.asarray(region * self.region + channel // self.phases * self.block + down * self.row + right)

    def partial(self) -> np.ndarray:
        """Whose partial sum lies in each slot, int [slots]; ``EMPTY`` where none does."""
        found = np.full(self.slots, EMPTY)
        for start in range(0, self.slots if self.repeated else self.period, self.period):
            found[self.first() + start] = np.arange(self.outputs)
        return found

    def layout(self) -> Layout:
        """What lies where after the folds."""
        return Layout(self.partial(), self.outputs)


def grids(
    shape: tuple[int, int, int], slots: int, block: int, row: int, spacing: int, cells: int = 1
) -> list[Grid]:  # fmt: skip
    """All grids of an image of this shape [channels, height, width] that fit."""
    found = []
    for phases in {1, spacing**2}:
        for repeated in (False, True):
            try:
                grid = Grid(slots, *shape, block, row, spacing, phases, repeated, cells)
            except RecipeError:
                continue
            if not repeated or grid.period < slots:
                found.append(grid)
    return found
