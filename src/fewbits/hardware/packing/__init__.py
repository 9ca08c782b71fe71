"""Where numbers lie in the slots of a ciphertext, and what a linear layer on them costs: nothing is encrypted here."""

from fewbits.hardware.packing.layout import EMPTY, JUNK, Layout, Spread, grouped
from fewbits.hardware.packing.shifts import Split, covering, diagonals, split

__all__ = ["EMPTY", "JUNK", "Layout", "Split", "Spread", "covering", "diagonals", "grouped", "split"]
