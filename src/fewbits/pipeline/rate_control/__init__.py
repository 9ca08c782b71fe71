"""Which strength of the entropy term, from a budget of bytes or accuracy."""

from fewbits.pipeline.rate_control.controllers import (
    HEADROOM,
    Fixed,
    SizeAt,
    Steering,
    TowardSize,
    WithinDrop,
    bracket,
    solve,
)
from fewbits.pipeline.rate_control.fill import between
from fewbits.pipeline.rate_control.size_search import Smallest, worth

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
