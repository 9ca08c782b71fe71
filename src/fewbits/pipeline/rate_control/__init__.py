"""Which strength of the entropy term, from a budget of bytes or accuracy."""

from fewbits.pipeline.rate_control._fill import fill_to_size
from fewbits.pipeline.rate_control._size_search import SizeSearch, rank_key
from fewbits.pipeline.rate_control.controllers import (
    HEADROOM,
    Fixed,
    MaxDrop,
    RateController,
    SizeAt,
    TargetSize,
    bracket,
    solve,
)

__all__ = [
    "HEADROOM",
    "Fixed",
    "MaxDrop",
    "RateController",
    "SizeAt",
    "SizeSearch",
    "TargetSize",
    "bracket",
    "fill_to_size",
    "rank_key",
    "solve",
]
