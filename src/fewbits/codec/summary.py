"""What a ``.few`` file holds, without the network it is for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fewbits.codec.container import VERSION, open_file
from fewbits.codec.directory import Record


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of a file.

    Attributes:
        name, shape: of the tensor.
        kind: ``"clustered"`` or ``"dense"``.
        count: number of elements.
        bits: bits per element before entropy coding (bit width of the grid, or of the number type).
        dtype: ``"float32"``, ...; ``None`` for a clustered tensor.
        step: step of a uniform grid, else ``None``.
        clusters: number of values that an element can take (clustered), else ``None``.
        coded_bytes: bytes of its section. Small dense tensors share one, which is split by their size; a
            constant tensor lives in the directory and counts 0.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    count: int
    bits: int
    dtype: str | None
    step: float | None
    clusters: int | None
    coded_bytes: int


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
    coded = [0] * len(contents.records)
    for section in contents.sections:
        total = sum(contents.records[i].count for i in section.members)
        seen = spent = 0
        for i in section.members:
            seen += contents.records[i].count
            coded[i] = section.size * seen // total - spent
            spent += coded[i]
    return Summary(
        version=VERSION,
        file_hash=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        overhead_bytes=len(data) - sum(section.size for section in contents.sections),
        header=contents.header,
        tensors=tuple(map(_tensor, contents.records, coded)),
    )


def _tensor(record: Record, coded_bytes: int) -> TensorSummary:
    lowest, highest = record.span if record.dtype is None else (0, 0)
    return TensorSummary(
        name=record.name,
        kind="clustered" if record.dtype is None else "dense",
        shape=record.shape,
        count=record.count,
        bits=record.bits if record.dtype is None else 8 * record.width,
        dtype=None if record.dtype is None else str(record.dtype).removeprefix("torch."),
        step=record.step,
        clusters=highest - lowest + 1 if record.dtype is None else None,
        coded_bytes=coded_bytes,
    )
