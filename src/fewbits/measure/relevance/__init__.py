"""Layer-wise relevance propagation: which inputs and which weights a network's decisions rest on.

LRP is patented; outside research and private use, take advice (see ``docs/legal.md``).
"""

from fewbits.measure.relevance._composed import How
from fewbits.measure.relevance._measure import Relevance, relevance, rules_of
from fewbits.measure.relevance._propagate import propagate
from fewbits.measure.relevance._propagated import Propagated
from fewbits.measure.relevance._rules import (
    COMPOSITES,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Rule,
    Rules,
    ZPlus,
    divide,
    stabilise,
)
from fewbits.measure.relevance._tape import Tape

__all__ = [
    "COMPOSITES",
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "How",
    "Propagated",
    "Relevance",
    "Rule",
    "Rules",
    "Tape",
    "ZPlus",
    "divide",
    "propagate",
    "relevance",
    "rules_of",
    "stabilise",
]
