"""Cheaper non-linear operations, each with a proven bound of its error."""

from fewbits.approximation import Approximation, Pieces
from fewbits.ops._functions import FUNCTIONS, Function
from fewbits.ops._module import Approximated, evaluate, reference
from fewbits.ops._proof import bound
from fewbits.ops.fit import fit
from fewbits.ops.nms import greedy_nms, pooled_nms, recall

__all__ = [
    "FUNCTIONS",
    "Approximated",
    "Approximation",
    "Function",
    "Pieces",
    "bound",
    "evaluate",
    "fit",
    "greedy_nms",
    "pooled_nms",
    "recall",
    "reference",
]
