"""Removed channels in the directory of a file: masks, one bit per channel, each of them written once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from fewbits.codec._cursor import Cursor, varint
from fewbits.codec.coder import Array
from fewbits.errors import FormatError

Masks = tuple[Array | None, ...]
"""For each dimension, true for the indices that are left; ``None`` where all are."""

WHOLE, NEW, KNOWN = 0, 1, 2  # a dimension: all of it, a mask that follows, one of before (KNOWN + i)
PADDING_LIMIT = 1 << 24


def pack(
    tensors: Sequence[tuple[int, Masks]], paddings: Mapping[str, tuple[int, int]], name: Callable[[str], bytes]
) -> bytes:
    """The column of narrowed tensors (kind, masks), and layers that pad channels; nothing without such tensors."""
    if not tensors:
        return b""
    known: dict[bytes, int] = {}
    out = []
    for kind, masks in tensors:
        out.append(bytes([kind]))
        for mask in masks:
            if mask is None:
                out.append(varint(WHOLE))
                continue
            key = mask.tobytes()
            if key in known:
                out.append(varint(KNOWN + known[key]))
                continue
            known[key] = len(known)
            out.append(varint(NEW) + np.packbits(mask, bitorder="little").tobytes())
    out.append(varint(len(paddings)))
    for path, counts in paddings.items():
        out += [name(path), *map(varint, counts)]
    return b"".join(out)


def unpack(
    cursor: Cursor, shapes: Iterable[tuple[int, ...]], name_limit: int, text: Callable[[bytes], str]
) -> tuple[list[tuple[int, Masks]], dict[str, tuple[int, int]]]:
    """The inverse of :func:`pack` for tensors of these larger shapes; FormatError for what it cannot have written."""
    known: list[Array] = []
    found = []
    for shape in shapes:
        kind = cursor.take(1)[0]
        masks = tuple(_mask(cursor, size, known) for size in shape)
        if all(mask is None for mask in masks):
            raise FormatError("the file holds a narrowed tensor that lost nothing")
        found.append((kind, masks))
    paddings: dict[str, tuple[int, int]] = {}
    count = cursor.varint(65535)
    for _ in range(count):
        path = text(cursor.until_zero(name_limit))
        paddings[path] = cursor.varint(PADDING_LIMIT), cursor.varint(PADDING_LIMIT)
    if len(paddings) < count:
        raise FormatError("the file names a padding layer twice")
    return found, paddings


def _mask(cursor: Cursor, size: int, known: list[Array]) -> Array | None:
    reference = cursor.varint(KNOWN + len(known))
    if reference == WHOLE:
        return None
    if reference >= KNOWN:
        if reference - KNOWN >= len(known) or len(known[reference - KNOWN]) != size:
            raise FormatError("the file names kept channels of another dimension")
        return known[reference - KNOWN]
    packed = np.frombuffer(cursor.take((size + 7) // 8), np.uint8)  # fails before anything of this size is made
    bits = np.unpackbits(packed, bitorder="little").astype(bool)
    mask = bits[:size]
    if bits[size:].any() or mask.all() or not mask.any():
        raise FormatError("the file holds kept channels that are all, none, or more than there are")
    known.append(mask)
    return mask
