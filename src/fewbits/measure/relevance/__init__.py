"""Layer-wise relevance propagation: which inputs and which weights a network's decisions rest on.

LRP is patented; outside research and private use, take advice (see ``docs/legal.md``).
"""

from fewbits.graph.traced import Kind, TracedGraph, trace
from fewbits.measure.relevance._measure import Relevance, relevance, rules_of, start_relevance
from fewbits.measure.relevance._propagate import Propagated, propagate
from fewbits.measure.relevance._record import ActivationTape
from fewbits.measure.relevance._rules import COMPOSITES, AlphaBeta, Epsilon, Flat, Gamma, Rule, Rules, ZPlus

__all__ = [
    "COMPOSITES",
    "ActivationTape",
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "Kind",
    "Propagated",
    "Relevance",
    "Rule",
    "Rules",
    "TracedGraph",
    "ZPlus",
    "propagate",
    "relevance",
    "rules_of",
    "start_relevance",
    "trace",
]
