"""Which strength of the entropy term, from a budget of bytes or accuracy."""

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
from fewbits.pipeline.rate_control.fill import fill_to_size
from fewbits.pipeline.rate_control.size_search import SizeSearch, rank_key

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
