"""Which settings: the entropy term's strength from a budget of bytes or accuracy, and sweeps (:mod:`.pareto`)."""

from fewbits.search.between import between
from fewbits.search.budget import HEADROOM, Fixed, SizeAt, Steering, TowardSize, WithinDrop, bracket, solve
from fewbits.search.smallest import Smallest, worth

__all__ = [
    "HEADROOM",
    "Fixed",
    "SizeAt",
    "Smallest",
    "Steering",
    "TowardSize",
    "WithinDrop",
    "between",
    "bracket",
    "solve",
    "worth",
]
