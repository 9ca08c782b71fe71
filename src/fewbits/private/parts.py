"""Several byte strings as one: ``count | length, bytes | length, bytes | ...``, numbers big-endian."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fewbits.errors import DamagedError

_COUNT, _LENGTH = struct.Struct(">I"), struct.Struct(">Q")


def join(parts: Sequence[bytes | memoryview]) -> bytes:
    """The parts as one byte string."""
    whole = bytearray(_COUNT.pack(len(parts)))
    for part in parts:
        whole += _LENGTH.pack(len(part))
        whole += part
    return bytes(whole)


def split(data: bytes | memoryview, count: int, what: str) -> list[memoryview]:
    """What :func:`join` was given, as views.

    Args:
        count: so many parts it must be.
        what: it is called in errors.

    Raises:
        DamagedError: another number of parts, or lengths that do not come to the bytes that are there.
    """
    view = memoryview(data)
    if len(view) < _COUNT.size or _COUNT.unpack_from(view)[0] != count:
        raise DamagedError(f"{what} has not the {count} parts that it must have")
    found, at = [], _COUNT.size
    for _ in range(count):
        if at + _LENGTH.size > len(view):
            raise DamagedError(f"{what} ends within one of its {count} parts")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise DamagedError(f"{what} ends within one of its {count} parts")
        found.append(view[at : at + length])
        at += length
    if at != len(view):
        raise DamagedError(f"{what} has {len(view) - at} bytes behind its {count} parts")
    return found
