"""Encrypted inference: a client encrypts its input, a server computes, and only the client can read the answer."""

from fewbits.private.compile import PROFILES, compile_network
from fewbits.private.cost import encrypted_latency
from fewbits.private.evaluator import Encodings, Evaluator
from fewbits.private.groups import diagonal_groups
from fewbits.private.parameters import SECURITY, Parameters, context
from fewbits.private.profile import SENTINEL, Profile
from fewbits.private.program import Program

__all__ = [
    "PROFILES",
    "SECURITY",
    "SENTINEL",
    "Encodings",
    "Evaluator",
    "Parameters",
    "Profile",
    "Program",
    "compile_network",
    "context",
    "diagonal_groups",
    "encrypted_latency",
]
