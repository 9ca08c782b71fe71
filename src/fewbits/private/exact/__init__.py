"""Encrypted inference that is exact: a network of integers in BFV, whose answers are the integers themselves."""

from fewbits.private.exact.keys import ExactKeys
from fewbits.private.exact.network import IntegerLayer, IntegerNetwork, integer_network
from fewbits.private.exact.parameters import MOST_MODULI, ExactParameters
from fewbits.private.exact.program import ExactProgram, compile_exact

__all__ = [
    "MOST_MODULI",
    "ExactKeys",
    "ExactParameters",
    "ExactProgram",
    "IntegerLayer",
    "IntegerNetwork",
    "compile_exact",
    "integer_network",
]
