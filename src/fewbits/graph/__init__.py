"""What feeds what in a network: the one read-only look that every room shares."""

from fewbits.graph.norm_pairs import biased, pairs
from fewbits.graph.recorded import OPENED, PLACE, VALUE, place_of, recorded, unseen
from fewbits.graph.traced import Kind, arguments, graph_of

__all__ = [
    "OPENED",
    "PLACE",
    "VALUE",
    "Kind",
    "arguments",
    "biased",
    "graph_of",
    "pairs",
    "place_of",
    "recorded",
    "unseen",
]
