"""What feeds what in a network: the one read-only look that every room shares."""

from fewbits.graph.norm_pairs import biased, pairs
from fewbits.graph.traced import Kind, TracedGraph, arguments, graph_of, overwrites, trace

__all__ = ["Kind", "TracedGraph", "arguments", "biased", "graph_of", "overwrites", "pairs", "trace"]
