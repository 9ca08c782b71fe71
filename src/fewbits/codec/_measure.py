"""How good the coding of a file is, section by section, without the network it is for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fewbits.codec._container import Contents, decoded_pieces, open_file
from fewbits.codec._difference import Base
from fewbits.codec._limits import excess, numbers_of
from fewbits.codec._summary import Summary, summary_of, without_base
from fewbits.codec.coder import STRIP, Array
from fewbits.errors import FormatError


@dataclass(frozen=True)
class Decoded:
    """What decoding a section in one thread showed.

    Attributes:
        name: of the tensor, or of the first of those that share the section.
        count: elements of the section.
        coded_bits: bits per element in the file.
        entropy_bits: zero-order entropy of the elements' values, in bits: what the best code for single,
            independent levels would need; ``None`` for numbers.
        seconds: time that decoding took.
    """

    name: str
    count: int
    coded_bits: float
    entropy_bits: float | None
    seconds: float


@dataclass(frozen=True)
class Examined:
    """A file as far as it can be looked at without its network.

    Attributes:
        summary: of its directory. sections: what decoding them showed; none if ``left`` says why they were not.
    """

    summary: Summary
    sections: list[Decoded]
    left: str | None


def measure(data: bytes, *, limit: int | None = None, base: Base | None = None) -> list[Decoded]:
    """Decode every section of a file, one by one in this thread, and keep nothing of it.

    Args:
        limit: numbers that the sections may declare; default: 2^18, and 256 for each byte of the file.
        base: of a file of differences.

    Raises:
        FormatError: the file is damaged, hostile, or declares more than ``limit`` numbers.
    """
    contents = open_file(data, base)
    if why := excess(contents, len(data), limit, whole=False, free=numbers_of(base)):
        raise FormatError(why)
    return _measured(contents)


def examine(data: bytes, *, limit: int | None = None, base: Base | None = None) -> Examined:
    """The directory of a file, and :func:`measure` where its limit allows that.

    Of a file of differences without its base there is little to see, see :func:`fewbits.codec.inspect`.

    Raises:
        FormatError: the file is damaged or hostile. BaseError: it needs another base, or none.
    """
    if base is None and (found := without_base(data)) is not None:
        return Examined(found, [], None)
    contents = open_file(data, base)
    why = excess(contents, len(data), limit, whole=False, free=numbers_of(base))
    return Examined(summary_of(contents, data), [] if why else _measured(contents), why)


def _measured(contents: Contents) -> list[Decoded]:
    rows = []
    for section, chunk in zip(contents.sections, contents.chunks, strict=True):
        members = [contents.records[i] for i in section.members]
        count = sum(record.count if section.levels else record.numbers for record in members)
        begin = time.perf_counter()
        counts = _counts(decoded_pieces(section, contents.records, chunk))
        seconds = time.perf_counter() - begin
        rows.append(Decoded(members[0].name, count, 8 * len(chunk) / count, _entropy(counts), seconds))
    return rows


def _counts(pieces: Iterable[Array]) -> Array:
    """How often each int16 level occurs."""
    counts = np.zeros(1 << 16, np.int64)
    for piece in pieces:
        flat = piece.reshape(-1)
        for at in range(0, flat.size, STRIP):
            counts += np.bincount(flat[at : at + STRIP].astype(np.int32) + 32768, minlength=1 << 16)
    return counts


def _entropy(counts: Array) -> float | None:
    counts = counts[counts > 0]
    if not counts.size:
        return None
    total = counts.sum()
    return max(0.0, math.log2(total) - float((counts * np.log2(counts)).sum()) / float(total))
