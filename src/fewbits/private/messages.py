"""What client and server say to each other besides keys, requests and answers."""

from __future__ import annotations

import json

from fewbits import errors
from fewbits.errors import DamagedError, PrivateError, ServerError, visible
from fewbits.private.envelope import Envelope, Kind, opened

LONGEST_ERROR = 1 << 12  # bytes of an error's payload
_NAMES = ("DamagedError", "KindError", "ParametersError", "WrongKeyError", "AuthenticationError", "ServerError")


class UnknownKeyError(ServerError):
    """The server does not have the keys that a request belongs to, or no longer."""


class BusyError(ServerError):
    """The server has as many clients or requests as it takes."""


_OWN = {"UnknownKeyError": UnknownKeyError, "BusyError": BusyError}


def hello(mac_key: bytes | None = None) -> bytes:
    """A client's first message, to which the profile is the answer."""
    return Envelope(Kind.HELLO, b"").sealed(mac_key)


def refusal(error: PrivateError, number: bytes = bytes(16), mac_key: bytes | None = None) -> bytes:
    """An error as a message."""
    name = type(error).__name__
    told = {"error": name if name in (*_NAMES, *_OWN) else "ServerError", "message": str(error)[:1000]}
    return Envelope(Kind.ERROR, json.dumps(told).encode()[:LONGEST_ERROR], number=number).sealed(mac_key)


def answered(data: bytes, kind: Kind, mac_key: bytes | None, **belongs: bytes | None) -> Envelope:
    """A server's message of this kind.

    Raises:
        PrivateError: what the server refused with, or what is wrong with its message.
    """
    found = opened(data, kind, Kind.ERROR, mac_key=mac_key, what="the server's message")
    if found.kind is Kind.ERROR:
        raise _error(bytes(found.payload))
    return opened(data, kind, mac_key=mac_key, what="the server's message", **belongs)


def _error(payload: bytes) -> PrivateError:
    try:
        told = json.loads(payload)
        name, message = told["error"], told["message"]
        cls = _OWN.get(name) or (getattr(errors, name) if name in _NAMES else ServerError)
        if not isinstance(message, str):
            raise TypeError("a message is text")
    except (ValueError, TypeError, KeyError, RecursionError):
        return DamagedError("the server's error cannot be read")
    return cls(f"the server says: {visible(message[:1000])}")
