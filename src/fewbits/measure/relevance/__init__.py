"""Layer-wise relevance propagation: which inputs and which weights a network's decisions rest on.

LRP is patented; outside research and private use, take advice (see ``docs/legal.md``).
"""

from fewbits.graph.traced import Kind, Lens, trace
from fewbits.measure.relevance.measure import Relevance, relevance, rules_of, start_relevance
from fewbits.measure.relevance.propagate import Propagated, propagate
from fewbits.measure.relevance.record import Recording
from fewbits.measure.relevance.rules import COMPOSITES, AlphaBeta, Epsilon, Flat, Gamma, Rule, Rules, ZPlus

__all__ = [
    "COMPOSITES",
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "Kind",
    "Lens",
    "Propagated",
    "Recording",
    "Relevance",
    "Rule",
    "Rules",
    "ZPlus",
    "propagate",
    "relevance",
    "rules_of",
    "start_relevance",
    "trace",
]
