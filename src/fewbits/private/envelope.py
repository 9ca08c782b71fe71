"""The envelope around every key, ciphertext, profile and answer: SEAL itself takes flipped and foreign bytes.

::

    magic  version  kind  flags  zero | length | profile  key  number | payload | SHA-256 | HMAC
      8       1       1     1     1   |   8    |   32      16    16   | length  |   32    |  32, if the flag says so

The SHA-256 is over everything before it, the HMAC (SHA-256, RFC 2104) over everything before it, the hash included.
Numbers are big-endian. A hash guards against damage only; against somebody who changes bytes on purpose, the HMAC
does, under a key that client and server share.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum

from fewbits.errors import AuthenticationError, DamagedError, KindError, ParametersError, WrongKeyError

MAGIC = b"\x93FEWPRIV"
VERSION = 1
HEAD = struct.Struct(">8sBBBBQ32s16s16s")
HASH = 32
_MAC_FLAG = 1


class Kind(IntEnum):
    """What is in an envelope."""

    PROFILE = 1
    SECRET_KEY = 2
    PUBLIC_KEY = 3
    EVALUATION_KEYS = 4
    REQUEST = 5
    ANSWER = 6
    HELLO = 7
    ACCEPTED = 8
    ERROR = 9
    MAC_KEY = 10

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Kind.PROFILE: "a profile",
    Kind.SECRET_KEY: "a secret key",
    Kind.PUBLIC_KEY: "a public key",
    Kind.EVALUATION_KEYS: "evaluation keys",
    Kind.REQUEST: "a request",
    Kind.ANSWER: "an answer",
    Kind.HELLO: "a greeting",
    Kind.ACCEPTED: "a receipt",
    Kind.ERROR: "an error",
    Kind.MAC_KEY: "a MAC key",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What the first bytes of an envelope say.

    Attributes:
        size: bytes of the whole envelope.
        profile: hash of the profile it belongs to, 32 bytes; zeros if of none.
        key: id of the keys it belongs to, 16 bytes; zeros if of none.
        number: of the request that it is or answers, 16 random bytes; zeros if of none.
    """

    kind: Kind
    size: int
    profile: bytes
    key: bytes
    number: bytes
    with_mac: bool


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is written around a payload; see :class:`Head`."""

    kind: Kind
    payload: bytes | memoryview
    profile: bytes = bytes(32)
    key: bytes = bytes(16)
    number: bytes = bytes(16)

    def sealed(self, mac_key: bytes | None = None) -> bytes:
        """As bytes, with an HMAC if a key of it is given."""
        flags = _MAC_FLAG if mac_key is not None else 0
        head = HEAD.pack(
            MAGIC, VERSION, self.kind, flags, 0, len(self.payload), self.profile, self.key, self.number
        )  # fmt: skip
        whole = bytearray(head)
        whole += self.payload
        whole += hashlib.sha256(whole).digest()
        if mac_key is not None:
            whole += hmac.digest(mac_key, bytes(whole), "sha256")
        return bytes(whole)


def head_of(data: bytes | memoryview, what: str = "the envelope") -> Head:
    """Of the first bytes of an envelope, before the others are there: nothing but the head is looked at.

    Raises:
        DamagedError: these bytes begin no envelope of this version.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        raise DamagedError(f"{what} is no file of private inference: it does not begin as one")
    if len(data) < HEAD.size:
        raise DamagedError(f"{what} is cut off: {len(data)} bytes are there, and its head alone has {HEAD.size}")
    _, version, kind, flags, zero, length, profile, key, number = HEAD.unpack_from(data)
    if version != VERSION:
        raise DamagedError(f"{what} is of version {version}, and this fewbits reads version {VERSION}")
    if flags > _MAC_FLAG or zero or kind not in Kind._value2member_map_:
        raise DamagedError(f"{what} is damaged: its head has values that do not exist")
    size = HEAD.size + length + HASH + (HASH if flags else 0)
    return Head(Kind(kind), size, profile, key, number, bool(flags))


def opened(
    data: bytes | memoryview,
    *kinds: Kind,
    profile: bytes | None = None,
    key: bytes | None = None,
    number: bytes | None = None,
    mac_key: bytes | None = None,
    what: str = "the envelope",
) -> Envelope:
    """What is in an envelope, once all that it says of itself was found to be true.

    Args:
        kinds: one of these it must be.
        profile, key, number: what it must belong to; ``None`` for any.
        mac_key: of the HMAC, which must be there then.
        what: it is called in errors.

    Raises:
        DamagedError: truncated, extended, changed, or no envelope. AuthenticationError: the HMAC is missing or wrong,
            or there is one and no key. KindError, ParametersError, WrongKeyError: it is sound, and another one.
    """
    view = memoryview(data)
    head = head_of(view, what)
    if len(view) != head.size:
        way = "cut off" if len(view) < head.size else "followed by bytes that do not belong to it"
        raise DamagedError(f"{what} is {way}: it says that it has {head.size:,} bytes, and {len(view):,} are there")
    end = head.size - HASH * (2 if head.with_mac else 1)
    if hashlib.sha256(view[:end]).digest() != view[end : end + HASH]:
        raise DamagedError(f"{what} is damaged: its SHA-256 does not fit; get it again")
    _authentic(view, head, mac_key, what)
    if head.kind not in kinds:
        raise KindError(f"{what} is {head.kind.words}; wanted is {' or '.join(kind.words for kind in kinds)}")
    if profile is not None and head.profile != profile:
        raise ParametersError(
            f"{what} belongs to another network or to other parameters: profile {head.profile.hex()[:12]}, "
            f"wanted is {profile.hex()[:12]}; make keys and requests for this profile"
        )
    if key is not None and head.key != key:
        raise WrongKeyError(f"{what} belongs to the key {head.key.hex()}, and not to {key.hex()}")
    if number is not None and head.number != number:
        raise WrongKeyError(f"{what} belongs to another request: {head.number.hex()}, not {number.hex()}")
    return Envelope(head.kind, view[HEAD.size : end], head.profile, head.key, head.number)


def _authentic(view: memoryview, head: Head, mac_key: bytes | None, what: str) -> None:
    if mac_key is None and head.with_mac:
        raise AuthenticationError(f"{what} has a MAC, and no key to check it: give the MAC key that both sides share")
    if mac_key is None:
        return
    if not head.with_mac:
        raise AuthenticationError(f"{what} has no MAC, and one is wanted: the other side must use the MAC key, too")
    if not hmac.compare_digest(hmac.digest(mac_key, bytes(view[:-HASH]), "sha256"), view[-HASH:]):
        raise AuthenticationError(f"{what} has a wrong MAC: it was changed, or made with another MAC key")
