"""What a server takes of its clients: sizes, numbers and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewbits.errors import PrivateError
from fewbits.private.envelope import HASH, HEAD, Kind
from fewbits.private.keys import galois_elements
from fewbits.private.sizes import ciphertext_limit, key_limit

if TYPE_CHECKING:
    from fewbits.private.profile import Profile

_AROUND = HEAD.size + 2 * HASH + 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a server.

    Attributes:
        clients: connections at a time; one more is told that the server is busy.
        workers: processes that compute.
        queue: requests that wait for a worker; one more is told that the server is busy.
        compute_seconds: of one request or set of keys; a worker that takes longer is ended and replaced.
        receive_seconds: in which a whole message must have come, and until the next one begins.
        keys: sets of evaluation keys that are kept, each in a file; the one that was not used for longest goes.
        key_bytes: of all these files.
    """

    clients: int = 16
    workers: int = 2
    queue: int = 16
    compute_seconds: float = 60.0
    receive_seconds: float = 60.0
    keys: int = 16
    key_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        for name in ("clients", "workers", "keys", "key_bytes"):
            if getattr(self, name) < 1:
                raise PrivateError(f"a server needs at least one of {name}")
        if self.queue < 0 or not self.compute_seconds > 0 or not self.receive_seconds > 0:
            raise PrivateError("a server's queue cannot be negative, and its times are more than zero")


def largest(profile: Profile) -> dict[Kind, int]:
    """Bytes of the largest envelope of each kind that a server of this profile takes; other kinds are refused.

    SEAL's compression never makes an object more than a few bytes larger than it is, so these are also bounds of what
    is sent.
    """
    parameters = profile.parameters
    elements = len(galois_elements(profile))
    keys = key_limit(parameters, elements) + key_limit(parameters, 1)
    request = len(profile.input_slots) * ciphertext_limit(parameters)
    return {
        Kind.HELLO: HEAD.size + 2 * HASH,
        Kind.EVALUATION_KEYS: _AROUND + keys + keys // 64,
        Kind.REQUEST: _AROUND + request + request // 64,
    }
