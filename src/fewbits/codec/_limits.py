"""How much of a file is decoded where no network says how much it should hold.

A coder may legitimately write a million numbers into a byte, and so may a file of a stranger that is after time and
memory. What networks need lies far below: even 256 numbers to a byte are a thousandth of float32.
"""

from __future__ import annotations

from fewbits.codec._container import Contents
from fewbits.codec._difference import Base
from fewbits.codec._record import Record, Section, section_of
from fewbits.codec.coder import CODERS, layout

FREE = 1 << 18
"""Numbers that any file may declare."""
PER_BYTE = 256
"""And so many more for each of its bytes."""
PIECE = 1 << 21
"""Levels that a coder decodes at once, and a quarter of the file's bytes more."""
DENSE = 1 << 25
"""Bytes that the numbers of a section have, and twice the file's bytes more."""


def numbers_of(base: Base | None) -> int:
    """Numbers of a base, which are there already."""
    return 0 if base is None else sum(tensor.numel() for tensor in base.tensors.values())


def excess(contents: Contents, size: int, limit: int | None, whole: bool, free: int = 0) -> str | None:
    """Why a file of ``size`` bytes is not decoded without its network, or ``None`` if it is.

    Args:
        limit: numbers that its reader allows instead, however few bytes they take.
        whole: also count tensors whose one element stands in the directory: a decoded plan has them, no section has.
        free: numbers that may be declared beside, as they are there already: those of a base.
    """
    records = contents.records
    numbers = sum(record.count for record in records if whole or record.has_levels or record.numbers)
    if limit is not None:
        words = f"the file declares {numbers:,} numbers; the limit without its network is {limit:,}"
        return words if numbers > limit else None
    most = FREE + PER_BYTE * size + free
    work = sum(map(_work, records)) + sum(_constant(record) for record in records if whole)
    if work > most:
        return _words(f"the file of {size:,} bytes declares {numbers:,} numbers", f"2^18 and {PER_BYTE} for each byte")
    for section in contents.sections:
        first = records[section.members[0]]
        if section.levels and _piece(records, section) > PIECE + size // 4 + free:
            return _words(f"tensor {first.name!r} of the file has too many levels in one piece", "2^21")
        if not section.levels and sum(_bytes(records[i]) for i in section.members) > DENSE + 2 * size:
            return _words(f"tensor {first.name!r} of the file has too many numbers in one section", "32 MB of them")
    return None


def _words(found: str, most: str) -> str:
    return f"{found}, and without its network at most {most} are decoded: give the network, or a limit on numbers"


def _work(record: Record) -> int:
    """What its sections take to decode: its levels, and the bytes of its numbers."""
    return (record.count if record.has_levels else 0) + _bytes(record)


def _bytes(record: Record) -> int:
    return record.numbers * record.width


def _constant(record: Record) -> int:
    return 0 if record.has_levels or record.numbers else record.count


def _piece(records: list[Record], section: Section) -> int:
    """Levels that are decoded at once; of a coder that nobody knows, none are."""
    if section.coder not in CODERS:
        return 0
    rows, columns, _ = layout(section_of([records[i] for i in section.members])[0])
    return CODERS[section.coder].height(rows, columns) * columns
