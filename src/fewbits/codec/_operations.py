"""The column of a directory that says what a network computes in place of its operations."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import numpy as np

from fewbits.approximation import KINDS, MOST_DEGREE, MOST_PIECES, OPERATIONS, Approximation, Pieces
from fewbits.codec._cursor import Cursor, varint
from fewbits.errors import FormatError, RecipeError

NAME = "*operations"
"""Of the entry of the directory, which is no tensor."""
REDUCED, PIECES, RELATIVE, LEFT, RIGHT = (1 << n for n in range(5))


def pack(approximations: Mapping[str, Approximation]) -> bytes:
    """How many there are, and each of them; nothing where there are none."""
    if not approximations:
        return b""
    return varint(len(approximations)) + b"".join(map(_packed, approximations.values()))


def _packed(found: Approximation) -> bytes:
    pieces = found.pieces
    flags = REDUCED * found.reduced | RELATIVE * found.relative
    if pieces is not None:
        flags |= PIECES | LEFT * (pieces.left is not None) | RIGHT * (pieces.right is not None)
    places = OPERATIONS.index(found.operation), KINDS.index(found.kind)
    head = struct.pack("<4B4f", *places, flags, found.bits, *found.units, found.bound, found.outside)
    if pieces is None:
        return head
    numbers = [number for line in (pieces.left, pieces.right) if line is not None for number in line]
    numbers += [*pieces.knots, *(c for row in pieces.coefficients for c in row)]
    exponent = int(math.log2(pieces.scale))
    shape = varint(len(pieces.coefficients)) + struct.pack("<BbB", pieces.degree, exponent, pieces.shift)
    return head + shape + np.array(numbers, "<f4").tobytes()


def unpack(cursor: Cursor) -> dict[str, Approximation]:
    """The inverse of :func:`pack`, where there are some; FormatError for anything that it could not have written."""
    count = cursor.varint(len(OPERATIONS))
    found = [_unpacked(cursor) for _ in range(count)]
    if not count or len({one.operation for one in found}) < count:
        raise FormatError("the file says twice, or not at all, what an operation of its network is computed by")
    return {one.operation: one for one in found}


def _unpacked(cursor: Cursor) -> Approximation:
    operation, kind, flags, bits, *floats = struct.unpack("<4B4f", cursor.take(20))
    if operation >= len(OPERATIONS) or kind >= len(KINDS) or flags >> 5:
        raise FormatError("the file has an operation in place of another that this fewbits does not know")
    try:
        return Approximation(
            OPERATIONS[operation], KINDS[kind], _pieces(cursor, flags) if flags & PIECES else None,
            bool(flags & REDUCED), bits, (floats[0], floats[1]), floats[2], bool(flags & RELATIVE), floats[3],
        )  # fmt: skip
    except RecipeError as error:
        raise FormatError(f"the file has an impossible operation: {error}") from None


def _pieces(cursor: Cursor, flags: int) -> Pieces:
    count = cursor.varint(MOST_PIECES)
    degree, exponent, shift = struct.unpack("<BbB", cursor.take(3))
    if degree > MOST_DEGREE:
        raise FormatError("the file has an operation of an impossible degree")
    sides = [(cursor.float32(), cursor.float32()) if flags & side else None for side in (LEFT, RIGHT)]
    knots = np.frombuffer(cursor.take(4 * (count + 1)), "<f4").tolist()
    rows = np.frombuffer(cursor.take(4 * count * (degree + 1)), "<f4").reshape(count, degree + 1).tolist()
    return Pieces(tuple(knots), tuple(map(tuple, rows)), 2.0**exponent, sides[0], sides[1], shift)
