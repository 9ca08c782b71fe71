"""The key of the HMAC that client and server share: 32 random bytes, in an envelope of their own."""

from __future__ import annotations

import secrets

from fewbits.errors import DamagedError
from fewbits.private.envelope import Envelope, Kind, opened

_BYTES = 32


def new_mac_key() -> bytes:
    """A MAC key in its envelope, which both sides must have and nobody else."""
    return Envelope(Kind.MAC_KEY, secrets.token_bytes(_BYTES)).sealed()


def open_mac_key(data: bytes, what: str = "the MAC key") -> bytes:
    """The 32 bytes of a MAC key."""
    found = bytes(opened(data, Kind.MAC_KEY, what=what).payload)
    if len(found) != _BYTES:
        raise DamagedError(f"{what} has {len(found)} bytes, not {_BYTES}")
    return found
