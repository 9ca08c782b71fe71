"""The head of a file of differences: which of the base's tensors are the network's, too, and how the others differ.

Names and shapes stand in the base, so that a tensor costs a byte here, and one that is the same next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fewbits.codec._cursor import Cursor, varint
from fewbits.codec._directory import (
    COUNT_LIMIT,
    NAME_LIMIT,
    RANK_LIMIT,
    TENSOR_LIMIT,
    USER_LIMIT,
    Directory,
    content_of,
    name_of,
    parse_user,
    read_sections,
    section_columns,
    stored,
    text_of,
    unvalued,
    user_text,
    value_columns,
    valued,
)
from fewbits.codec._parts import SHARED_LIMIT, Parts, record_of
from fewbits.codec._record import (
    ABSENT_KIND,
    AFFINE,
    ALIAS_KIND,
    CONSTANT,
    NARROWED,
    OWN,
    SAME_KIND,
    SHARED,
    Record,
    Section,
)
from fewbits.errors import BaseError, FormatError, RecipeError, UnsupportedError
from fewbits.plan import Dense, Entry, Plan, unchanged

FORM = 2
IDENTITY = 16
"""Bytes by which a base is known: the last ones of its file, which are the hash of all before."""
_SILENT = (ABSENT_KIND, SAME_KIND)


@dataclass(frozen=True, eq=False)
class Base:
    """A file that others are differences to.

    Attributes:
        identity: of the file. plan: what it holds. tensors: that, as the network computes with it, by first names.
    """

    identity: bytes
    plan: Plan
    tensors: Mapping[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", {name: entry.values() for name, entry in self.plan.items()})


def check_base(plan: Plan) -> Plan:
    """The plan of a file, if others can be differences to it; UnsupportedError otherwise."""
    if plan.channels is not None:
        raise UnsupportedError("a network that lost channels cannot be a base: take one that has them all, or no base")
    if plan.affine:
        raise UnsupportedError("a network with integer activations cannot be a base: take one of clusters, or no base")
    if plan.approximations:
        raise UnsupportedError(
            f"a network that computes {next(iter(plan.approximations))} otherwise cannot be a base: take another one"
        )
    return plan


def parts_of(plan: Plan, base: Base) -> list[Parts]:
    """What the file of a plan of differences is made of: the base's tensors in its order, then all others.

    Raises:
        RecipeError: a difference to other numbers than the base has. UnsupportedError: a plan that lost channels, or
            holds integers with scales.
    """
    if plan.channels is not None or plan.affine:
        raise UnsupportedError("channels that were removed, and integer activations, go without a base")
    if plan.approximations:
        raise UnsupportedError(
            f"a network that computes {next(iter(plan.approximations))} otherwise goes without a base: leave base out"
        )
    places = {name: number for number, name in enumerate(base.tensors)}
    found, own = [], []
    for name, entry in plan.items():
        if name in base.tensors and (entry.base is not None or _is_base(entry, base.tensors[name])):
            found.append(_part(name, entry, places[name], base.tensors[name]))
        elif entry.base is not None:
            raise RecipeError(
                f"{name} is a difference to a tensor that the base lacks: give encode the plan's own base"
            )
        else:
            own.append(record_of(name, entry))
    return sorted(found, key=lambda part: part.record.place or 0) + own


def _part(name: str, entry: Entry, place: int, tensor: Tensor) -> Parts:
    if entry.base is not None and not (entry.base.shape == tensor.shape and torch.equal(entry.base.cpu(), tensor)):
        raise RecipeError(f"{name} is a difference to other numbers than the base's: give encode the plan's own base")
    if entry.base is None or unchanged(entry):
        return Parts(Record(name, tuple(tensor.shape), CONSTANT, tensor.dtype, place=place, same=True))
    parts = record_of(name, entry)
    record = replace(parts.record, place=place)
    together = record.step is not None and record.storage == OWN and record.count < SHARED_LIMIT
    return replace(parts, record=replace(record, storage=SHARED) if together else record)


def _is_base(entry: Entry, tensor: Tensor) -> bool:
    """Whether a tensor that is no difference has the base's numbers, of the same type."""
    data = entry.values().cpu()
    return isinstance(entry, Dense) and data.dtype == tensor.dtype and torch.equal(data, tensor)


def aliases_left(base: Plan, absent: set[str], names: set[str]) -> dict[str, str]:
    """The base's other names that hold for the network, too: of tensors that it has, and free."""
    return {other: name for other, name in base.aliases.items() if name not in absent and other not in names}


def pack(records: list[Record], sections: list[Section], header: Mapping[str, object], plan: Plan, base: Base) -> bytes:
    """The head as it stands in a file. RecipeError for a name or header that cannot be written."""
    at = {record.place: record for record in records if record.place is not None}
    own = [record for record in records if record.place is None]
    numbers = {name: i for i, name in enumerate(base.tensors) if i in at}
    numbers |= {record.name: len(base.tensors) + i for i, record in enumerate(own)}
    absent = {name for i, name in enumerate(base.tensors) if i not in at}
    gone = aliases_left(base.plan, absent, {*plan, *plan.aliases})
    known = {o: n for o, n in base.plan.aliases.items() if plan.aliases.get(o) == n and n not in absent}
    aliases = {other: numbers[name] for other, name in plan.aliases.items() if other not in known}
    aliases |= dict.fromkeys(gone, len(base.tensors) + len(own))
    if len(records) + len(aliases) > TENSOR_LIMIT:
        raise RecipeError(f"a file holds at most {TENSOR_LIMIT} tensors, got {len(records) + len(aliases)}")
    changed = [record for record in records if not record.same]
    text = user_text(header)
    content = b"".join(
        [
            varint(len(base.tensors)),
            bytes(at[i].kind if i in at else ABSENT_KIND for i in range(len(base.tensors))),
            varint(len(own) + len(aliases)),
            *(name_of(name) for name in (*(record.name for record in own), *aliases)),
            bytes(record.kind for record in own) + bytes([ALIAS_KIND] * len(aliases)),
            bytes(len(record.shape) for record in own),
            *(varint(size) for record in own for size in record.shape),
            *map(varint, aliases.values()),
            *value_columns(changed),
            *section_columns(sections),
        ]
    )
    return bytes([FORM]) + base.identity + varint(len(text)) + text + stored(content)


@dataclass(frozen=True)
class Preface:
    """What the head of a file of differences says without its base."""

    identity: bytes
    header: dict[str, object]
    rest: bytes


def preface(head: bytes) -> Preface | None:
    """The same of a stored head; ``None`` if the file stands alone. FormatError for a head that is cut off."""
    if head[:1] != bytes([FORM]):
        return None
    cursor = Cursor(head)
    cursor.take(1)
    identity = cursor.take(IDENTITY)
    header = parse_user(cursor.take(cursor.varint(USER_LIMIT)))
    return Preface(identity, header, cursor.take(cursor.left))


def unpack(found: Preface, base: Base) -> Directory:
    """The inverse of :func:`pack`; BaseError for another base, FormatError for anything that it cannot have written."""
    if found.identity != base.identity:
        raise BaseError(
            f"the file holds differences to the base {found.identity.hex()}, and the base given is "
            f"{base.identity.hex()}: give the file that it was made with ('fewbits inspect' shows a file's identity)"
        )
    cursor = Cursor(content_of(found.rest))
    names = list(base.tensors)
    if cursor.varint(TENSOR_LIMIT) != len(names):
        raise FormatError("the file speaks of another number of tensors than its base holds")
    marks = cursor.take(len(names))
    places = [i for i, mark in enumerate(marks) if mark not in _SILENT]
    absent = {name for name, mark in zip(names, marks, strict=True) if mark == ABSENT_KIND}
    own, kinds, shapes, others = _own(cursor)
    present = {name for name in names if name not in absent}
    if len({*own, *others}) < len(own) + len(others) or not present.isdisjoint({*own, *others}):
        raise FormatError("the file holds two tensors of the same name")
    targets = [*names, *own]
    left = aliases_left(base.plan, absent, {*own, *others})
    told = {other: _target(cursor, targets, len(names), absent) for other in others}
    could_go = aliases_left(base.plan, absent, set(own))
    if any(name is None and other not in could_go for other, name in told.items()):
        raise FormatError("the file takes away another name that its base lacks")
    aliases = left | {other: name for other, name in told.items() if name is not None}
    kinds = bytes(marks[i] for i in places) + kinds
    if any(kind == NARROWED or (kind >> 6) << 4 | kind & 15 == AFFINE for kind in kinds):
        raise FormatError("the file holds differences of a network that lost channels, or of integers")
    all_shapes = [tuple(base.tensors[names[i]].shape) for i in places] + shapes
    records = unvalued(cursor, [names[i] for i in places] + own, kinds, all_shapes, shared=True)
    for i, record in zip(places, records, strict=False):
        if base.tensors[names[i]].dtype != torch.float32 or not _is_difference(record):
            raise FormatError(f"tensor {record.name!r} of the file is a difference of what has none")
    for record in records[len(places) :]:
        if record.dtype is None and record.storage == SHARED:
            raise FormatError(f"tensor {record.name!r} of the file is stored in an unknown way")
    records = valued(cursor, records)
    differing = {i: replace(record, place=i) for i, record in zip(places, records, strict=False)}
    every = [_present(i, name, base, differing) for i, name in enumerate(names) if name not in absent]
    every += records[len(places) :]
    sections = read_sections(cursor, every)
    if cursor.left:
        raise FormatError("the directory of the file has bytes left over")
    return Directory(every, sections, found.header, {}, aliases, {})


def _own(cursor: Cursor) -> tuple[list[str], bytes, list[tuple[int, ...]], list[str]]:
    """Names, kinds and shapes of the tensors that stand alone, and the other names that follow them."""
    count = cursor.varint(TENSOR_LIMIT)
    names = [text_of(cursor.until_zero(NAME_LIMIT)) for _ in range(count)]
    kinds = cursor.take(count)
    alone = len(kinds.rstrip(bytes([ALIAS_KIND])))
    ranks = cursor.take(alone)
    if any(rank > RANK_LIMIT for rank in ranks):
        raise FormatError(f"the file holds a tensor of more than {RANK_LIMIT} dimensions")
    shapes = [tuple(cursor.varints(rank, COUNT_LIMIT)) for rank in ranks]
    for shape in shapes:
        if Record("", shape, OWN).count > COUNT_LIMIT:
            raise FormatError("the file holds a tensor of an impossible size")
    return names[:alone], kinds[:alone], shapes, names[alone:]


def _target(cursor: Cursor, targets: list[str], count: int, absent: set[str]) -> str | None:
    """The tensor that another name is of: one of the base, which has so many, or one that stands alone.

    ``None`` for the number behind the last: the base has this name, and the network has not.
    """
    place = cursor.varint(len(targets))
    if place == len(targets):
        return None
    if place < count and targets[place] in absent:
        raise FormatError("the file holds another name of a tensor that it does not hold")
    return targets[place]


def _is_difference(record: Record) -> bool:
    return record.dtype is None or record.dtype in (torch.float32, torch.float16, torch.bfloat16)


def _present(place: int, name: str, base: Base, differing: Mapping[int, Record]) -> Record:
    tensor = base.tensors[name]
    same = Record(name, tuple(tensor.shape), CONSTANT, tensor.dtype, place=place, same=True)
    return differing.get(place, same)


def based(record: Record, entry: Entry | None, base: Base) -> Entry:
    """The entry of a tensor of the base: what the file has of it, with the base; or the base as it is."""
    tensor = base.tensors[record.name]
    if entry is not None:
        return replace(entry, base=tensor)  # type: ignore[arg-type]  # an affine entry is refused before
    return Dense(torch.zeros_like(tensor), tensor) if tensor.dtype == torch.float32 else Dense(tensor)
