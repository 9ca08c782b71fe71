"""What a ``.few`` file holds, without the network it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite

from fewbits.approximation import Approximation
from fewbits.codec import _dense as dense
from fewbits.codec import _difference as difference
from fewbits.codec._container import DIGEST, VERSION, Contents, open_file, stored_head
from fewbits.codec._difference import Base
from fewbits.codec._record import Record
from fewbits.codec.coder import CODERS
from fewbits.errors import FormatError


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
        difference: whether it is one to the base's tensor; of kind ``"same"``, none.
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
    difference: bool = False


@dataclass(frozen=True)
class OperationSummary:
    """What the network of a file computes in place of an operation.

    Attributes:
        name: of the operation. words: by what. numbers: how many of them.
        bound: of the error on its domain; ``None`` where none is proven. relative: whether that is a share.
    """

    name: str
    words: str
    numbers: int
    bound: float | None
    relative: bool


@dataclass(frozen=True)
class Summary:
    """A whole file.

    Attributes:
        version: of the format.
        file_hash: SHA-256 of the whole file, hexadecimal.
        file_bytes: its size.
        overhead_bytes: what is neither a weight nor a number: signature, directory, header, checksums, hash.
        header: the user's own header.
        tensors: in file order; of a file of differences without its base, none.
        base: of a file of differences, which file these are to: the identity of it; else ``None``.
        identity: by which files of differences know it as their base: its last 16 bytes, hexadecimal.
        operations: what its network computes in place of others.
    """

    version: int
    file_hash: str
    file_bytes: int
    overhead_bytes: int
    header: dict[str, object]
    tensors: tuple[TensorSummary, ...]
    base: str | None = None
    identity: str = ""
    operations: tuple[OperationSummary, ...] = ()

    @property
    def count(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.count for tensor in self.tensors)


def inspect(data: bytes, base: Base | None = None) -> Summary:
    """Directory and header of a ``.few`` file; all checksums are verified, and no weight is decoded.

    Args:
        base: of a file of differences. Without it only the header, the sizes and the base's identity are told.

    Raises:
        FormatError: the file is damaged, truncated, hostile or of a newer version. BaseError: it needs another base, or
            none.
    """
    found = without_base(data) if base is None else None
    return found or summary_of(open_file(data, base), data)


def without_base(data: bytes) -> Summary | None:
    """What a file of differences says by itself; ``None`` for a file that stands alone.

    Raises:
        FormatError: it is damaged or hostile as a whole.
    """
    head, _ = stored_head(lambda begin, end: data[begin:end], len(data))
    found = difference.preface(head)
    if found is None:
        return None
    _check_hash(data)
    digest = hashlib.sha256(data).hexdigest()
    return Summary(VERSION, digest, len(data), len(data), found.header, (), found.identity.hex(), data[-DIGEST:].hex())


def summary_of(contents: Contents, data: bytes) -> Summary:
    """The same of a file that was opened."""
    coded, names = [0] * len(contents.records), ["constant"] * len(contents.records)
    for section in contents.sections:
        held = {
            i: contents.records[i].count if section.levels else contents.records[i].numbers for i in section.members
        }
        total = sum(held.values())
        seen = spent = 0
        for i, numbers in held.items():
            if section.levels or not contents.records[i].has_levels:
                names[i] = _coder(section.coder)
            seen += numbers
            share = section.size * seen // total - spent
            coded[i] += share
            spent += share
    return Summary(
        version=VERSION,
        file_hash=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        overhead_bytes=len(data) - sum(section.size for section in contents.sections),
        header=contents.header,
        base=None if contents.base is None else contents.base.hex(),
        identity=data[-DIGEST:].hex(),
        tensors=tuple(map(partial(_tensor, _names(contents.aliases)), contents.records, names, coded)),
        operations=tuple(map(_operation, contents.approximations.values())),
    )


def _operation(found: Approximation) -> OperationSummary:
    numbers = 0 if found.pieces is None else found.pieces.numbers
    bound = found.bound if isfinite(found.bound) else None
    return OperationSummary(found.operation, str(found), numbers, bound, found.relative)


def _check_hash(data: bytes) -> None:
    if hashlib.sha256(data[:-DIGEST]).digest()[:DIGEST] != data[-DIGEST:]:
        raise FormatError("the file is damaged: its hash does not match")


def _coder(number: int) -> str:
    if number == dense.NUMBER:
        return "numbers"
    return CODERS[number].name if number in CODERS else f"unknown ({number})"


def _kind(record: Record) -> str:
    if record.same:
        return "same"
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
        difference=record.place is not None,
    )
