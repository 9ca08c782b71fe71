"""What feeds what in a network: the one read-only look that every room shares."""

from fewbits.graph.norm_pairs import biased, pairs
from fewbits.graph.traced import Kind, arguments, graph_of

__all__ = ["Kind", "arguments", "biased", "graph_of", "pairs"]
