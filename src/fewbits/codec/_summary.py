"""What a ``.few`` file holds, without the network it is for."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fewbits.codec import _dense as dense
from fewbits.codec._container import VERSION, Contents, decode_section, open_file
from fewbits.codec._record import Record
from fewbits.codec.coder import CODERS, Array
from fewbits.errors import FormatError

LIMIT = 1 << 28
"""Numbers that a file may declare where no network says how many there should be."""


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of a file.

    Attributes:
        name, shape: of the tensor.
        kind: ``"clustered"``, ``"masked"``, ``"affine"`` or ``"dense"``.
        count: number of elements.
        bits: bits per element before entropy coding (bit width of the grid, or of the number type).
        dtype: ``"float32"``, ...; ``None`` for a clustered or affine tensor.
        step: step of a uniform grid, else ``None``.
        clusters: number of levels that an element can take (clustered, affine), else ``None``.
        coder: by which coder: ``"small"``, ``"fast"``, ``"mixing"``, ``"numbers"``, or ``"constant"``; of a masked
            tensor, that of the mask, of an affine one, that of the levels.
        coded_bytes: bytes of its sections. Small dense tensors share one, which is split by their size; a
            constant tensor lives in the directory and counts 0.
        survivors: of a masked tensor, how many elements are kept as numbers; else ``None``.
        aliases: its other names, where a network has it in several places.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    count: int
    bits: int
    dtype: str | None
    step: float | None
    clusters: int | None
    coder: str
    coded_bytes: int
    survivors: int | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A whole file.

    Attributes:
        version: of the format.
        file_hash: SHA-256 of the whole file, hexadecimal.
        file_bytes: its size.
        overhead_bytes: what is neither a weight nor a number: signature, directory, header, checksums, hash.
        header: the user's own header.
        tensors: in file order.
    """

    version: int
    file_hash: str
    file_bytes: int
    overhead_bytes: int
    header: dict[str, object]
    tensors: tuple[TensorSummary, ...]

    @property
    def count(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.count for tensor in self.tensors)


def inspect(data: bytes) -> Summary:
    """Directory and header of a ``.few`` file; all checksums are verified, and no weight is decoded.

    Raises:
        FormatError: the file is damaged, truncated, hostile or of a newer version.
    """
    contents = open_file(data)
    coded, names = [0] * len(contents.records), ["constant"] * len(contents.records)
    for section in contents.sections:
        if section.levels:
            names[section.members[0]] = _coder(section.coder)
            coded[section.members[0]] += section.size
            continue
        total = sum(contents.records[i].numbers for i in section.members)
        seen = spent = 0
        for i in section.members:
            if not contents.records[i].has_levels:
                names[i] = _coder(section.coder)
            seen += contents.records[i].numbers
            share = section.size * seen // total - spent
            coded[i] += share
            spent += share
    return Summary(
        version=VERSION,
        file_hash=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        overhead_bytes=len(data) - sum(section.size for section in contents.sections),
        header=contents.header,
        tensors=tuple(map(partial(_tensor, _names(contents.aliases)), contents.records, names, coded)),
    )


def shapes(data: bytes, *, limit: int = LIMIT) -> dict[str, Tensor]:
    """Names and shapes that a file declares, as tensors without memory: a ``like`` for files of unknown networks.

    Raises:
        FormatError: the file is not sound, or declares more than ``limit`` numbers.
    """
    contents = _open(data, limit)
    found = {record.name: torch.empty(record.shape, device="meta") for record in contents.records}
    return found | {other: found[name] for other, name in contents.aliases.items()}


def _open(data: bytes, limit: int) -> Contents:
    contents = open_file(data)
    count = sum(record.count for record in contents.records)
    if count > limit:
        raise FormatError(f"the file declares {count:,} numbers; the limit without its network is {limit:,}")
    return contents


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


def measure(data: bytes, *, limit: int = LIMIT) -> list[Decoded]:
    """Decode every section of a file, one by one in this thread.

    Raises:
        FormatError: the file is damaged, hostile, or declares more than ``limit`` numbers.
    """
    contents = _open(data, limit)
    rows = []
    for section, chunk in zip(contents.sections, contents.chunks, strict=True):
        members = [contents.records[i] for i in section.members]
        count = sum(record.count if section.levels else record.numbers for record in members)
        begin = time.perf_counter()
        levels = decode_section(section, contents.records, chunk)
        seconds = time.perf_counter() - begin
        rows.append(Decoded(members[0].name, count, 8 * len(chunk) / count, _entropy(levels), seconds))
    return rows


def _entropy(levels: Array | None) -> float | None:
    if levels is None:
        return None
    counts = np.bincount(levels.reshape(-1).astype(np.int32) + 32768)
    counts = counts[counts > 0]
    total = counts.sum()
    return max(0.0, math.log2(total) - float((counts * np.log2(counts)).sum()) / float(total))


def _coder(number: int) -> str:
    if number == dense.NUMBER:
        return "numbers"
    return CODERS[number].name if number in CODERS else f"unknown ({number})"


def _kind(record: Record) -> str:
    if record.axis is not None:
        return "affine"
    if record.dtype is None:
        return "clustered"
    return "dense" if record.survivors is None else "masked"


def _names(aliases: Mapping[str, str]) -> dict[str, list[str]]:
    """The other names of each tensor."""
    found: dict[str, list[str]] = {}
    for other, name in aliases.items():
        found.setdefault(name, []).append(other)
    return found


def _tensor(aliases: Mapping[str, list[str]], record: Record, coder: str, coded_bytes: int) -> TensorSummary:
    has_grid = record.dtype is None or record.axis is not None
    lowest, highest = record.span if has_grid else (0, 0)
    return TensorSummary(
        name=record.name,
        kind=_kind(record),
        shape=record.shape,
        count=record.count,
        bits=record.bits if has_grid else 8 * record.width,
        dtype=None if has_grid else str(record.dtype).removeprefix("torch."),
        step=record.step,
        clusters=highest - lowest + 1 if has_grid else None,
        coder=coder,
        coded_bytes=coded_bytes,
        survivors=record.survivors,
        aliases=tuple(aliases.get(record.name, ())),
    )
