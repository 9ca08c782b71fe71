"""Where numbers lie in the slots of a ciphertext, and what a linear layer on them costs: nothing is encrypted here."""

from fewbits.hardware.packing.cells import folded_cells, summed_cells
from fewbits.hardware.packing.cover import greedy
from fewbits.hardware.packing.grid import Grid, grids
from fewbits.hardware.packing.layout import EMPTY, JUNK, Layout, Spread, grouped
from fewbits.hardware.packing.shifts import Placement, Split, covering, diagonals, split

__all__ = [
    "EMPTY",
    "JUNK",
    "Grid",
    "Layout",
    "Placement",
    "Split",
    "Spread",
    "covering",
    "diagonals",
    "folded_cells",
    "greedy",
    "grids",
    "grouped",
    "split",
    "summed_cells",
]
