"""The head of a file: which tensors it holds, where, and the user's own header.

Columns instead of rows (all names, all kinds, all shapes, ...): the byte model predicts a column well.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import NoReturn

import torch

from fewbits.approximation import Approximation
from fewbits.codec import _narrowing as narrowing
from fewbits.codec import _operations as operations
from fewbits.codec._cursor import Cursor, varint
from fewbits.codec._dense import DTYPES
from fewbits.codec._narrowing import Masks
from fewbits.codec._record import (
    AFFINE,
    ALIAS_KIND,
    CONSTANT,
    DENSE,
    MASKED,
    NARROWED,
    OPERATIONS_KIND,
    OWN,
    SHARED,
    STEP,
    SURVIVORS,
    Record,
    Section,
    grouping,
    overflows,
)
from fewbits.codec.coder import bits
from fewbits.errors import FormatError, RecipeError
from fewbits.plan import MAX_BITS

HEAD_LIMIT = 2 << 20  # bytes of a head before coding
USER_LIMIT = 1 << 20  # bytes of the user's header as JSON
TENSOR_LIMIT = 65535
NAME_LIMIT = 1024
RANK_LIMIT = 64
COUNT_LIMIT = 1 << 48  # numbers in one tensor
EXPANSION = 64  # a coded head is at least 1 / 64 of its content, which bounds the work of a reader
RAW, CODED = 0, 1

# The byte model learns this before every head, so that the usual names are cheap from the first one on.
PRIME = (
    b"num_batches_tracked\0running_mean\0running_var\0features.0.weight\0features.0.bias\0"
    b"layer1.0.conv1.weight\0layer1.0.bn1.weight\0layer1.0.bn1.bias\0fc.weight\0fc.bias\0"
)


def value_columns(records: list[Record]) -> list[bytes]:
    """The columns of a head that say what tensors are made of."""
    clustered = [r for r in records if r.dtype is None]
    return [
        bytes(r.bits for r in clustered),
        *(_cluster_values(r) for r in clustered),
        *(varint(r.survivors) for r in records if r.survivors is not None),
        *(bytes([r.bits, r.axis]) for r in records if r.axis is not None),
        *(r.constant for r in records),
    ]


def section_columns(sections: list[Section]) -> list[bytes]:
    """The columns of a head that say how sections are coded, and how long they are."""
    return [bytes(s.coder for s in sections), *(varint(s.size) for s in sections)]


def pack(
    records: list[Record],
    sections: list[Section],
    header: Mapping[str, object],
    paddings: Mapping[str, tuple[int, int]] | None = None,
    aliases: Mapping[str, str] | None = None,
    approximations: Mapping[str, Approximation] | None = None,
) -> bytes:
    """The head as it stands in a file. RecipeError for a name or header that cannot be written."""
    aliases, approximations = aliases or {}, approximations or {}
    extra = [operations.NAME] if approximations else []
    count = len(records) + len(aliases) + len(extra)
    if count > TENSOR_LIMIT:
        raise RecipeError(f"a file holds at most {TENSOR_LIMIT} tensors, got {count}")
    if extra and any(name == operations.NAME for name in (*(r.name for r in records), *aliases)):
        raise RecipeError(
            f"a tensor of a network with other operations cannot be called {operations.NAME!r}: rename it"
        )
    places = {record.name: i for i, record in enumerate(records)}
    head = b"".join(
        [
            varint(count),
            *(name_of(name) for name in (*places, *aliases, *extra)),
            bytes(r.kind if r.kept is None else NARROWED for r in records) + bytes([ALIAS_KIND] * len(aliases)),
            bytes([OPERATIONS_KIND] * len(extra)),
            bytes(len(r.shape) for r in records) + bytes(len(aliases) + len(extra)),
            *(varint(size) for r in records for size in r.full),
            narrowing.pack([(r.kind, r.kept) for r in records if r.kept is not None], paddings or {}, name_of),
            *(varint(places[name]) for name in aliases.values()),
            operations.pack(approximations),
            *value_columns(records),
            *section_columns(sections),
            user_text(header),
        ]
    )
    return stored(head)


def stored(head: bytes) -> bytes:
    """The content of a head as it stands in a file: its form, and the content as it is or coded."""
    if len(head) > HEAD_LIMIT:
        raise RecipeError(f"the directory of this plan has {len(head)} bytes; a file holds at most {HEAD_LIMIT}")
    coded = bytes([CODED]) + varint(len(head)) + bits.bytes_encode(head, 0, PRIME)
    if len(coded) > len(head) or len(coded) * EXPANSION < len(head):
        return bytes([RAW]) + head
    return coded


@dataclass(frozen=True)
class Directory:
    """What :func:`pack` was given."""

    records: list[Record]
    sections: list[Section]
    header: dict[str, object]
    paddings: dict[str, tuple[int, int]]
    aliases: dict[str, str]
    approximations: dict[str, Approximation] = field(default_factory=dict)


def unpack(stored: bytes) -> Directory:
    """The inverse of :func:`pack`; FormatError for anything that it could not have written."""
    cursor = Cursor(content_of(stored))
    count = cursor.varint(TENSOR_LIMIT)
    names = [text_of(cursor.until_zero(NAME_LIMIT)) for _ in range(count)]
    if len(set(names)) < count:
        raise FormatError("the file holds two tensors of the same name")
    kinds = cursor.take(count)
    ranks = cursor.take(count)
    if any(rank > RANK_LIMIT for rank in ranks):
        raise FormatError(f"the file holds a tensor of more than {RANK_LIMIT} dimensions")
    shapes = [tuple(cursor.varints(rank, COUNT_LIMIT)) for rank in ranks]
    if any(prod(shape) > COUNT_LIMIT for shape in shapes):
        raise FormatError("the file holds a tensor of an impossible size")
    extra = kinds[-1:] == bytes([OPERATIONS_KIND])
    if extra:
        if names[-1] != operations.NAME or ranks[-1]:
            raise FormatError("the file calls what its network computes with as if it were a tensor")
        names, kinds, shapes, ranks = names[:-1], kinds[:-1], shapes[:-1], ranks[:-1]
    count = len(kinds.rstrip(bytes([ALIAS_KIND])))
    if any(ranks[count:]):
        raise FormatError("the file gives another name of a tensor dimensions of its own")
    kinds, shapes, kept, paddings = _narrowed(cursor, kinds[:count], shapes[:count])
    names, others = names[:count], names[count:]
    aliases = {other: names[_before(cursor, count)] for other in others}
    approximations = operations.unpack(cursor) if extra else {}
    records = unvalued(cursor, names, kinds, shapes)
    records = [
        record if masks is None else replace(record, kept=masks) for record, masks in zip(records, kept, strict=True)
    ]
    records = valued(cursor, records)
    sections = read_sections(cursor, records)
    return Directory(records, sections, parse_user(cursor.take(cursor.left)), paddings, aliases, approximations)


def unvalued(
    cursor: Cursor, names: list[str], kinds: bytes, shapes: list[tuple[int, ...]], *, shared: bool = False
) -> list[Record]:
    """Records with what their kinds say, and with grids; see :func:`valued` for the rest.

    Args:
        shared: whether levels may be in a shared section.
    """
    whats = [(kind >> 6) << 4 | kind & 15 for kind in kinds]
    if any(what >= MASKED + len(SURVIVORS) and what != AFFINE for what in whats):
        raise FormatError("the file holds a tensor of an unknown kind")
    widths = iter(cursor.take(sum(what < DENSE for what in whats)))
    records = []
    for name, kind, what, shape in zip(names, kinds, whats, shapes, strict=True):
        storage = kind >> 4 & 3
        if what == AFFINE:
            records.append(Record(name, shape, storage, dtype=torch.float32, axis=0))
        elif what >= MASKED:
            records.append(Record(name, shape, storage, dtype=SURVIVORS[what - MASKED], survivors=0))
        elif what >= DENSE:
            records.append(Record(name, shape, storage, dtype=DTYPES[what - DENSE]))
        else:
            records.append(_clustered(cursor, name, shape, storage, what, next(widths)))
        if what < DENSE and storage == SHARED and not (shared and what == STEP):
            raise FormatError(f"tensor {name!r} of the file is stored in an unknown way")
    return records


def valued(cursor: Cursor, records: list[Record]) -> list[Record]:
    """The records with survivors, grids and constants."""
    records = [_with_survivors(cursor, record) for record in records]
    records = [_with_axis(cursor, record) for record in records]
    return [_with_constant(cursor, record) for record in records]


def read_sections(cursor: Cursor, records: list[Record]) -> list[Section]:
    """The inverse of :func:`section_columns`."""
    groups = grouping(records)
    coders = cursor.take(len(groups))
    sizes = [cursor.varint(COUNT_LIMIT) for _ in groups]
    return [Section(*group, *fields) for group, *fields in zip(groups, coders, sizes, strict=True)]


def _before(cursor: Cursor, count: int) -> int:
    """The number of a tensor, of so many."""
    place = cursor.varint(count)
    if place == count:
        raise FormatError("the file holds another name of a tensor that it does not hold")
    return place


def _narrowed(
    cursor: Cursor, kinds: bytes, shapes: list[tuple[int, ...]]
) -> tuple[bytes, list[tuple[int, ...]], list[Masks | None], dict[str, tuple[int, int]]]:
    """Kinds and shapes as they are stored, and what was removed from them."""
    chosen = [i for i, kind in enumerate(kinds) if kind == NARROWED]
    if not chosen:
        return kinds, shapes, [None] * len(kinds), {}
    found, paddings = narrowing.unpack(cursor, [shapes[i] for i in chosen], NAME_LIMIT, text_of)
    inner, small = bytearray(kinds), list(shapes)
    kept: list[Masks | None] = [None] * len(kinds)
    left: dict[int, int] = {}  # each mask is counted once, however many tensors have it
    for i, (kind, masks) in zip(chosen, found, strict=True):
        inner[i], kept[i] = kind, masks
        left |= {id(m): int(m.sum()) for m in masks if m is not None and id(m) not in left}
        small[i] = tuple(s if m is None else left[id(m)] for s, m in zip(shapes[i], masks, strict=True))
    return bytes(inner), small, kept, paddings


def name_of(name: str) -> bytes:
    """A name as it stands in a head. RecipeError for one that cannot."""
    try:
        coded = name.encode()
    except UnicodeEncodeError:
        raise RecipeError(f"the tensor name {name!r} cannot be written") from None
    if 0 in coded or len(coded) > NAME_LIMIT:
        raise RecipeError(f"a tensor name has at most {NAME_LIMIT} bytes and no zero byte, got {name[:80]!r}")
    return coded + b"\0"


def _cluster_values(record: Record) -> bytes:
    if record.codebook is None:
        return struct.pack("<f", record.step)
    size = len(record.codebook)
    return struct.pack("<h", record.lowest) + varint(size) + struct.pack(f"<{size}f", *record.codebook)


def user_text(header: Mapping[str, object]) -> bytes:
    """The user's header as JSON. RecipeError for one that cannot be written."""
    if not header:
        return b""
    try:
        text = json.dumps(dict(header), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        if json.loads(text) != dict(header):
            raise ValueError("it would read back differently (keys must be strings, tuples must be lists)")
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(f"the header cannot be written as JSON: {error}") from None
    if len(text) > USER_LIMIT:
        raise RecipeError(f"the header has {len(text)} bytes as JSON; a file holds at most {USER_LIMIT}")
    return text


def content_of(stored: bytes) -> bytes:
    """The inverse of :func:`stored`."""
    cursor = Cursor(stored)
    form = cursor.take(1)[0]
    if form == RAW:
        if cursor.left > HEAD_LIMIT:
            raise FormatError("the directory of the file is too large")
        return cursor.take(cursor.left)
    if form != CODED:
        raise FormatError("the directory of the file is written in an unknown way")
    content = bytearray(cursor.varint(min(HEAD_LIMIT, EXPANSION * len(stored))))
    try:
        bits.bytes_decode(cursor.take(cursor.left), content, 0, PRIME)
    except ValueError as error:
        raise FormatError(f"the file holds {error}") from None
    return bytes(content)


def text_of(coded: bytes) -> str:
    """The inverse of :func:`name_of`."""
    try:
        return coded.decode()
    except UnicodeDecodeError:
        raise FormatError("the file holds a tensor name that is no text") from None


def _clustered(cursor: Cursor, name: str, shape: tuple[int, ...], storage: int, what: int, width: int) -> Record:
    if not 2 <= width <= MAX_BITS:
        raise FormatError(f"tensor {name!r} of the file has an impossible bit width, {width}")
    if what == STEP:
        step = cursor.float32()
        if step <= 0:
            raise FormatError(f"tensor {name!r} of the file has a step that is not positive")
        if overflows(step, width):
            raise FormatError(f"tensor {name!r} of the file has a step whose multiples are not finite")
        return Record(name, shape, storage, bits=width, step=step)
    (lowest,) = struct.unpack("<h", cursor.take(2))
    size = cursor.varint(min(2**width, 32768 - lowest))
    if size == 0:
        raise FormatError(f"tensor {name!r} of the file has an empty codebook")
    codebook = tuple(cursor.float32() for _ in range(size))
    return Record(name, shape, storage, bits=width, codebook=codebook, lowest=lowest)


def _with_survivors(cursor: Cursor, record: Record) -> Record:
    if record.survivors is None:
        return record
    if record.storage not in (OWN, SHARED):
        raise FormatError(f"tensor {record.name!r} of the file is stored in an unknown way")
    survivors = cursor.varint(record.count)
    if not survivors and record.storage != OWN:
        raise FormatError(f"tensor {record.name!r} of the file has no numbers, and yet shares a section of numbers")
    return replace(record, survivors=survivors)


def _with_axis(cursor: Cursor, record: Record) -> Record:
    if record.axis is None:
        return record
    width, axis = cursor.take(2)
    if not 2 <= width <= 8:
        raise FormatError(f"tensor {record.name!r} of the file has an impossible bit width, {width}")
    if axis >= len(record.shape):
        raise FormatError(f"tensor {record.name!r} of the file has no dimension {axis} for its scales")
    if record.storage not in (OWN, SHARED) or record.count == 0:
        raise FormatError(f"tensor {record.name!r} of the file is stored in an unknown way")
    return replace(record, bits=width, axis=axis)


def _with_constant(cursor: Cursor, record: Record) -> Record:
    if record.survivors is not None or record.axis is not None:
        return record
    clustered = record.dtype is None
    if record.storage > CONSTANT:
        raise FormatError(f"tensor {record.name!r} of the file is stored in an unknown way")
    if record.count == 0 and record.storage != CONSTANT:
        raise FormatError(f"tensor {record.name!r} of the file is empty, and yet has a section")
    if record.storage != CONSTANT or record.count == 0:
        return record
    element = cursor.take(record.width)
    if clustered:
        lowest, highest = record.span
        if not lowest <= struct.unpack("<h", element)[0] <= highest:
            raise FormatError(f"tensor {record.name!r} of the file has a level out of range")
    return replace(record, constant=element)


def parse_user(text: bytes) -> dict[str, object]:
    """The inverse of :func:`user_text`."""
    if not text:
        return {}
    if len(text) > USER_LIMIT:
        raise FormatError("the header of the file is too large")
    try:
        header = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        raise FormatError("the header of the file is no valid JSON") from None
    if not isinstance(header, dict):
        raise FormatError("the header of the file is no mapping")
    return header


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key appears twice")
    return result
