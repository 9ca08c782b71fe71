"""Encrypted inference: a client encrypts its input, a server computes, and only the client can read the answer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewbits.private.address import listen
    from fewbits.private.binding import opened_profile, sealed_profile
    from fewbits.private.client import Client
    from fewbits.private.compile import PROFILES, compile_network
    from fewbits.private.connection import Connection
    from fewbits.private.cost import encrypted_latency
    from fewbits.private.evaluator import Encodings, Evaluator
    from fewbits.private.groups import Diagonals, diagonal_groups, diagonals_of
    from fewbits.private.keys import Keys, generate
    from fewbits.private.limits import Limits
    from fewbits.private.mac import new_mac_key, open_mac_key
    from fewbits.private.parameters import SECURITY, Parameters, context
    from fewbits.private.profile import SENTINEL, Profile
    from fewbits.private.program import Program
    from fewbits.private.server import Server
    from fewbits.private.tls import client_tls, server_tls

__all__ = [
    "PROFILES",
    "SECURITY",
    "SENTINEL",
    "Client",
    "Connection",
    "Diagonals",
    "Encodings",
    "Evaluator",
    "Keys",
    "Limits",
    "Parameters",
    "Profile",
    "Program",
    "Server",
    "client_tls",
    "compile_network",
    "context",
    "diagonal_groups",
    "diagonals_of",
    "encrypted_latency",
    "generate",
    "listen",
    "new_mac_key",
    "open_mac_key",
    "opened_profile",
    "sealed_profile",
    "server_tls",
]

_HOMES = {  # imported at the first use: a client needs no torch, which takes two seconds
    "address": ("listen",),
    "binding": ("opened_profile", "sealed_profile"),
    "client": ("Client",),
    "compile": ("PROFILES", "compile_network"),
    "connection": ("Connection",),
    "cost": ("encrypted_latency",),
    "evaluator": ("Encodings", "Evaluator"),
    "groups": ("Diagonals", "diagonal_groups", "diagonals_of"),
    "keys": ("Keys", "generate"),
    "limits": ("Limits",),
    "mac": ("new_mac_key", "open_mac_key"),
    "parameters": ("SECURITY", "Parameters", "context"),
    "profile": ("SENTINEL", "Profile"),
    "program": ("Program",),
    "server": ("Server",),
    "tls": ("client_tls", "server_tls"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"fewbits.private.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
