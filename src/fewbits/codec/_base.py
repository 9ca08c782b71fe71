"""A file as the base of others."""

from __future__ import annotations

from fewbits.codec._container import decode, stored_head
from fewbits.codec._difference import IDENTITY, Base, check_base, preface
from fewbits.codec._shapes import shapes
from fewbits.errors import BaseError, FormatError


def base_of(data: bytes, *, limit: int | None = None) -> Base:
    """A whole file, decoded, as what others are differences to.

    Args:
        data: a file that stands alone. limit: numbers that it may declare even if they are more than 2^18, and 256 for
            each of its bytes; a base may have a head that is larger than a whole network.

    Raises:
        FormatError: the file is not sound, or declares more numbers. BaseError: it is itself one of
            differences. UnsupportedError: its network lost channels, or has integer activations.
    """
    found = preface(stored_head(lambda begin, end: data[begin:end], len(data))[0])
    if found is not None:
        raise BaseError(
            f"the base given ({data[-IDENTITY:].hex()}) holds differences itself, to {found.identity.hex()}: give "
            "that file, which stands alone"
        )
    try:
        like = shapes(data)
    except FormatError:
        if limit is None:
            raise
        like = shapes(data, limit=limit)
    return Base(bytes(data[-IDENTITY:]), check_base(decode(data, like)))
