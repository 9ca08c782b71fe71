"""A plan as the bytes of a ``.few`` file, and back (layout: ``docs/format.md``, part 1)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.approximation import Approximation
from fewbits.codec import _dense as dense
from fewbits.codec import _difference as difference
from fewbits.codec import coder as coders
from fewbits.codec._difference import Base
from fewbits.codec._directory import Directory, pack, unpack
from fewbits.codec._parts import channels_of, narrowed, record_of
from fewbits.codec._record import CONSTANT, FAMILY_FORM, SHARED, Record, Section, grouping, section_of
from fewbits.codec._work import run
from fewbits.codec.coder import CODERS, Array
from fewbits.errors import BaseError, FormatError, MismatchError, RecipeError, did_you_mean
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked, Plan

MAGIC = b"\x8afew\r\n\x1a\n"
VERSION = 1
DIGEST = 16  # bytes of SHA-256 at the end
CHECK = 2  # bytes of CRC-32 after the head and after each section
FEW = 1 << 17  # weights that one thread codes on its own, unless asked otherwise
TRAINING_COUNTER = "num_batches_tracked"

Like = nn.Module | Mapping[str, Tensor]

Known = dict[bytes, tuple[int, bytes]]
"""Sections of levels, and the numbers of their coders, by a hash of what they hold."""


@dataclass(frozen=True)
class Contents:
    """A sound file, taken apart but not decoded. ``sections`` and ``chunks`` go together."""

    header: dict[str, object]
    records: list[Record]
    sections: list[Section]
    chunks: list[bytes]
    paddings: dict[str, tuple[int, int]]
    aliases: dict[str, str]
    approximations: dict[str, Approximation] = field(default_factory=dict)
    base: bytes | None = None


def encode(
    plan: Plan,
    *,
    header: Mapping[str, object] | None = None,
    profile: str = "small",
    threads: int | None = None,
    base: Base | None = None,
    known: Known | None = None,
) -> bytes:
    """The bytes of a ``.few`` file that holds ``plan``; the same plan gives the same bytes on every machine.

    Args:
        plan: the tensors to write, in this order.
        header: anything that JSON can hold, to be read back by :func:`inspect`; at most 1 MiB.
        profile: how levels are coded: ``"small"`` or ``"fast"``.
        threads: how many code at once; default: one per processor, up to 16. The bytes do not depend on it.
        known: of a file that was coded before, by what they hold, sections of levels: those are not coded again.
            Afterwards this file's are in their place.
        base: for a plan of differences, the file that they are to, by :func:`base_of`; its readers need it, too.

    Raises:
        NonFiniteError: a dense number is NaN, or a step, a scale or a codebook value is NaN or infinite.
        RecipeError: a level outside its grid, a step that is not positive, a data type, name or header that
            the format cannot hold; differences without their base, or with another one.
    """
    if base is None and plan.relative:
        raise RecipeError("the plan holds differences: give encode their base, as base=, or encode plan.whole()")
    parts = [record_of(n, entry) for n, entry in plan.items()] if base is None else difference.parts_of(plan, base)
    if plan.channels is not None:
        parts = [narrowed(part, plan.channels) for part in parts]
    records = [part.record for part in parts]
    groups = grouping(records)
    jobs: list[Callable[[], tuple[int, bytes]]] = []
    strips: list[int] = []  # jobs per section
    keys: list[bytes | None] = []
    for members, is_levels in groups:
        first = parts[members[0]]
        keys.append(None)
        if is_levels:
            shape, (lowest, highest) = section_of([parts[i].record for i in members])
            levels = [found for i in members if (found := parts[i].levels) is not None]
            together = levels[0] if len(levels) == 1 else np.concatenate([found.reshape(-1) for found in levels])
            keys[-1] = None if known is None else _key(together.reshape(shape), lowest, highest, profile)
            if known is not None and keys[-1] in known:
                strips.append(0)
                continue
            coding = coders.encoding(together.reshape(shape), min(lowest, 0), max(highest, 0), profile)
        else:
            assert first.record.dtype is not None
            rows = [part for i in members if (part := parts[i].numbers) is not None]
            coding = [partial(_numbers, rows, first.record.dtype)]
        strips.append(len(coding))
        jobs += coding
    done = iter(run(jobs, threads or _threads(sum(record.count for record in records))))
    chunks, sections = [], []
    now: Known = {}
    for (members, is_levels), count, key in zip(groups, strips, keys, strict=True):
        if known is not None and key is not None and not count:
            number, chunk = known[key]
        else:
            numbers, streams = zip(*(next(done) for _ in range(count)), strict=True)
            number, chunk = numbers[0], coders.joined(streams)
        if key is not None:
            now[key] = number, chunk
        chunks.append(chunk)
        sections.append(Section(members, is_levels, number, len(chunk)))
    if known is not None:
        known.clear()
        known.update(now)
    paddings = plan.channels.paddings if plan.channels is not None else None
    if base is not None and plan.approximations:
        raise RecipeError(
            "a file of differences holds no operations in place of others: write the network without base"
        )
    if base is None:
        head = pack(records, sections, header or {}, paddings, plan.aliases, plan.approximations)
    else:
        head = difference.pack(records, sections, header or {}, plan, base)
    blocks = [MAGIC, struct.pack("<HI", VERSION, len(head))]
    for block in (head, *chunks):
        blocks += [block, check_of(block)]
    body = b"".join(blocks)
    return body + hashlib.sha256(body).digest()[:DIGEST]


def decode(data: bytes, like: Like, *, threads: int | None = None, base: Base | None = None) -> Plan:
    """The plan in the bytes of a ``.few`` file.

    Args:
        data: the whole file.
        like: the network (or its state dict) that the file is for. It says which names and shapes are valid,
            and nothing larger is ever allocated. Its numbers are not read. Only its training counters
            (``num_batches_tracked``) may be missing from the file. For a network that lost channels it is the
            network before, or after.
        threads: how many decode at once; default: one per processor, up to 16.
        base: of a file of differences, what these are to, by :func:`base_of`. The entries then have the order of
            ``like``.

    Raises:
        FormatError: the file is damaged, truncated, hostile or of a newer version.
        MismatchError: the file is sound, but a name or shape differs from ``like``; BaseError: or it needs a base, or
            another one, or none.
    """
    valid = _shapes(like)
    contents = open_file(data, base)
    _compare(contents, valid)
    pairs = list(zip(contents.sections, contents.chunks, strict=True))
    records = contents.records
    changed = [i for i, record in enumerate(records) if not record.same]
    entries = decoded_entries(records, changed, pairs, threads)
    if base is not None:
        for i, record in enumerate(records):
            if record.place is not None:
                entries[i] = difference.based(record, entries.get(i), base)
    channels = channels_of(records, contents.paddings, contents.aliases)
    found = {record.name: entries[i] for i, record in enumerate(records)}
    if base is not None:
        found = {name: found[name] for name in valid if name in found}
    return Plan(found, channels, contents.aliases, contents.approximations)


def decoded_entries(
    records: list[Record], wanted: Iterable[int], sections: list[tuple[Section, bytes]], threads: int | None = None
) -> dict[int, Entry]:
    """The entries of the wanted records, by their places, from the sections that hold them (or more).

    Allocates what the shapes of all records of these sections need, which the caller has compared.
    """
    numbers: dict[int, Array] = {}
    jobs: list[Callable[[], None]] = []
    levels: dict[int, Array] = {}
    for section, chunk in sections:
        members = [records[i] for i in section.members]
        if section.levels:
            together, parts = _decoding(members, section.coder, chunk)
            jobs += parts
            ends = np.cumsum([record.count for record in members])[:-1]
            apart = [together] if len(members) == 1 else np.split(together, ends)  # views, which the jobs fill
            levels.update(
                (i, part.reshape(record.shape)) for i, record, part in zip(section.members, members, apart, strict=True)
            )
        else:
            numbers.update(zip(section.members, _decoded_numbers(members, section.coder, chunk), strict=True))
    run(jobs, threads or _threads(sum(array.size for array in levels.values())))
    return {i: _entry(records[i], levels.get(i), numbers.get(i)) for i in wanted}


def open_file(data: bytes, base: Base | None = None) -> Contents:
    """Check a whole file (signature, version, checksums, directory), take it apart.

    Raises:
        FormatError: it is not sound. BaseError: it needs a base, or another one, or none.
    """
    data = bytes(data)
    directory, end = open_directory(lambda begin, end: data[begin:end], len(data), base)
    sound = hashlib.sha256(data[:-DIGEST]).digest()[:DIGEST] == data[-DIGEST:]
    records, sections = directory.records, directory.sections
    chunks = []
    at = end
    for section in sections:
        chunks.append(checked_chunk(data[at : at + section.size + CHECK], records[section.members[0]].name))
        at += section.size + CHECK
    if not sound:
        raise FormatError("the file is damaged: its hash does not match")
    identity = None if base is None else base.identity
    rest = directory.paddings, directory.aliases, directory.approximations
    return Contents(directory.header, records, sections, chunks, *rest, identity)


def open_directory(take: Callable[[int, int], bytes], size: int, base: Base | None = None) -> tuple[Directory, int]:
    """Check signature, version and directory of a file, and its size; FormatError otherwise. No section is asked for.

    Args:
        take: ``take(begin, end)`` gives bytes of the file. size: of the file. base: of a file of differences.

    Returns:
        The directory, and where the first section begins.

    Raises:
        FormatError: it is not sound. BaseError: it needs a base, or another one, or none.
    """
    head, end = stored_head(take, size)
    if head[:1] == bytes([FAMILY_FORM]):
        raise MismatchError(
            "the file holds several networks: name one of them, as member= (--member); 'fewbits tasks' lists them"
        )
    preface = difference.preface(head)
    if preface is not None and base is None:
        raise BaseError(
            f"the file holds differences to the base {preface.identity.hex()}, which was not given: give the file that "
            "it was made with, as base= (--base)"
        )
    if preface is None and base is not None:
        raise BaseError(f"the file stands alone, and needs no base ({base.identity.hex()} was given): leave base out")
    directory = unpack(head) if preface is None or base is None else difference.unpack(preface, base)
    needed = end + sum(section.size + CHECK for section in directory.sections) + DIGEST
    if needed > size:
        raise FormatError(f"the file is truncated: it should have {needed} bytes, and has {size}")
    if needed < size:
        raise FormatError(f"the file has {size - needed} bytes too many")
    return directory, end


def stored_head(take: Callable[[int, int], bytes], size: int) -> tuple[bytes, int]:
    """Check signature, version and the check of the head; the head as it is stored, and where it ends with its check.

    Raises:
        FormatError: it is not sound.
    """
    start = len(MAGIC) + 6
    begin = take(0, start)
    if begin[: len(MAGIC)] != MAGIC:
        raise FormatError(_wrong_magic(begin))
    if size < start + CHECK + DIGEST:
        raise FormatError("the file is truncated: it ends before its directory")
    version, head_size = struct.unpack_from("<HI", begin, len(MAGIC))
    if version > VERSION:
        raise FormatError(f"the file has format version {version}; this fewbits reads up to version {VERSION}")
    if version == 0:
        raise FormatError("the file has format version 0, which does not exist")
    end = start + head_size
    if end + CHECK + DIGEST > size:
        raise FormatError("the file is truncated: it ends within its directory")
    head = take(start, end + CHECK)
    if head[head_size:] != check_of(head[:head_size]):
        raise FormatError("the file is damaged: the checksum of its directory does not match")
    return head[:head_size], end + CHECK


def checked_chunk(block: bytes, name: str) -> bytes:
    """The bytes of a section, without the check that follows them; FormatError if it does not match."""
    chunk = block[:-CHECK]
    if block[-CHECK:] != check_of(chunk):
        raise FormatError(f"the file is damaged: the checksum of tensor {name!r} does not match")
    return chunk


def check_of(block: bytes) -> bytes:
    """What stands behind a block: the lower 16 bits of its CRC-32."""
    return struct.pack("<H", zlib.crc32(block) & 0xFFFF)


def _wrong_magic(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data[:4] == MAGIC[:4]:
        return "the file is damaged: it was changed by a text-mode transfer or is cut off"
    return "this is not a .few file"


def _threads(weights: int) -> int | None:
    """One where starting more would take longer than the work."""
    return 1 if weights < FEW else None


def _key(levels: Array, lowest: int, highest: int, profile: str) -> bytes:
    """A hash of all that a section of levels depends on."""
    about = repr((levels.shape, lowest, highest, profile)).encode()
    found = hashlib.blake2b(np.ascontiguousarray(levels, np.int16).reshape(-1).data, digest_size=16)
    found.update(about)
    return found.digest()


def _numbers(rows: list[Array], dtype: torch.dtype) -> tuple[int, bytes]:
    return dense.NUMBER, dense.encode(np.concatenate(rows), dtype)


def decoded_pieces(section: Section, records: list[Record], chunk: bytes) -> Iterator[Array]:
    """The levels (or mask) of a section piece by piece, in this thread; nothing for numbers, which are decoded as well.

    Never holds more than a piece, and what was decoded of numbers.
    """
    members = [records[i] for i in section.members]
    first = members[0]
    if not section.levels:
        assert first.dtype is not None
        planes = _decoded_planes(members, section.coder, chunk)
        at = 0
        for record in members:
            for start in range(at, at + record.numbers, FEW):
                end = min(start + FEW, at + record.numbers)
                found = dense.from_bytes(dense.rows(planes[:, start:end], first.dtype), first.dtype, (end - start,))
                if record.survivors is not None or record.axis is not None:
                    _check_finite(record, found)
            at += record.numbers
        return
    shape, (lowest, highest) = section_of(members)
    kept = 0
    for piece in _coder(first, section.coder).strips(chunk, shape, min(lowest, 0), max(highest, 0)):
        if len(members) == 1:
            _check_span(first, piece)
        kept += int(piece.sum(dtype=np.int64))
        yield piece
    _check_survivors(first, kept)


def _decoding(members: list[Record], coder: int, chunk: bytes) -> tuple[Array, list[Callable[[], None]]]:
    """An array for the levels of a section, and the jobs that fill it: no larger than its (compared) shapes need."""
    shape, (lowest, highest) = section_of(members)
    return _coder(members[0], coder).decoding(chunk, shape, min(lowest, 0), max(highest, 0))


def _coder(record: Record, number: int) -> coders.Coder:
    if number not in CODERS:
        raise FormatError(f"tensor {record.name!r} of the file needs the unknown coder {number}")
    return CODERS[number]


def _decoded_numbers(members: list[Record], coder: int, chunk: bytes) -> list[Array]:
    """The numbers of each tensor of a section, as bytes."""
    assert members[0].dtype is not None
    rows = dense.rows(_decoded_planes(members, coder, chunk), members[0].dtype)
    ends = np.cumsum([record.numbers for record in members])[:-1]
    return list(np.split(rows, ends))


def _decoded_planes(members: list[Record], coder: int, chunk: bytes) -> Array:
    """The numbers of all tensors of a section, as byte planes."""
    dtype = members[0].dtype
    assert dtype is not None
    if coder != dense.NUMBER:
        raise FormatError(f"tensor {members[0].name!r} of the file needs the unknown coder {coder}")
    return dense.planes(chunk, sum(record.numbers for record in members), dtype)


def _entry(record: Record, levels: Array | None, numbers: Array | None) -> Entry:
    """The entry of a record, from what its sections held; what has no section is constant."""
    if record.survivors is not None:
        return _masked(record, levels, numbers)
    if record.axis is not None:
        return _affine(record, levels, numbers)
    if record.storage == CONSTANT:
        one = np.frombuffer(record.constant, np.uint8).reshape(-1, record.width)
        rows = np.repeat(one, record.count, axis=0)
        if record.dtype is None:
            levels = np.ascontiguousarray(rows).view("<i2").astype(np.int16).reshape(record.shape)
        else:
            numbers = rows
    elif levels is not None:
        _check_levels(record, levels)
    if record.dtype is None:
        assert levels is not None
        return Clustered(torch.from_numpy(levels), record.bits, record.step, record.codebook, record.lowest)
    assert numbers is not None
    return Dense(dense.from_bytes(numbers, record.dtype, record.shape))


def _masked(record: Record, levels: Array | None, numbers: Array | None) -> Masked:
    assert record.dtype is not None
    if levels is None:
        mask = torch.full(record.shape, bool(record.survivors))
    else:
        _check_levels(record, levels)
        mask = torch.from_numpy(levels) == 1
    data = torch.zeros(record.shape, dtype=record.dtype)
    if numbers is not None:
        data[mask] = _check_numbers(record, numbers)
    return Masked(data, mask)


def _affine(record: Record, levels: Array | None, numbers: Array | None) -> Affine:
    assert levels is not None
    assert numbers is not None
    assert record.axis is not None
    _check_levels(record, levels)
    scales = _check_numbers(record, numbers)
    if not bool((scales > 0).all()):
        raise FormatError(f"tensor {record.name!r} of the file has a scale that is not positive")
    return Affine(torch.from_numpy(levels).to(torch.int8), scales, record.axis, record.bits)


def _check_numbers(record: Record, rows: Array) -> Tensor:
    assert record.dtype is not None
    numbers = dense.from_bytes(rows, record.dtype, (record.numbers,))
    _check_finite(record, numbers)
    return numbers


def _check_finite(record: Record, numbers: Tensor) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise FormatError(f"tensor {record.name!r} of the file holds infinity")


def _check_levels(record: Record, levels: Array) -> None:
    """FormatError for levels that a coder would code, and the record does not allow."""
    _check_span(record, levels)
    _check_survivors(record, int(levels.sum(dtype=np.int64)) if record.survivors is not None else 0)


def _check_span(record: Record, levels: Array) -> None:
    lowest, highest = record.span
    # A coder keeps to the bounds that it was given, which always include zero, and may be those of several tensors.
    if (
        not (lowest <= 0 <= highest and record.storage != SHARED)
        and levels.size
        and not (lowest <= levels.min() and levels.max() <= highest)
    ):
        raise FormatError(f"tensor {record.name!r} of the file has a level out of range")


def _check_survivors(record: Record, kept: int) -> None:
    if record.survivors is not None and kept != record.survivors:
        raise FormatError(f"tensor {record.name!r} of the file has a mask that does not fit its numbers")


def _shapes(like: Like) -> dict[str, tuple[int, ...]]:
    state = like.state_dict() if isinstance(like, nn.Module) else like
    if not isinstance(state, Mapping):
        raise RecipeError(f"like= takes a module or a mapping of names to tensors, got {type(like).__name__}")
    return {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _compare(contents: Contents, valid: Mapping[str, tuple[int, ...]]) -> None:
    """MismatchError unless the file has the names and shapes of the network, before channels were removed or after."""
    by_name = {record.name: record for record in contents.records}
    present = by_name | {other: by_name[name] for other, name in contents.aliases.items()}
    before = any(valid.get(r.name) == r.full != r.shape for r in contents.records)
    for name, record in present.items():
        shape = valid.get(name)
        if shape is None:
            hint = did_you_mean(name[:100], valid)
            raise MismatchError(
                f"the file holds tensor {name[:100]!r} of shape {_show(record.shape)}, which the network lacks{hint}"
            )
        declared = record.full if before else record.shape
        if shape != declared:
            raise MismatchError(
                f"tensor {name!r} has shape {_show(declared)} in the file and {_show(shape)} in the network"
            )
    for name, shape in valid.items():
        if name not in present and name.rpartition(".")[2] != TRAINING_COUNTER:
            hint = did_you_mean(name, present)
            raise MismatchError(f"the network has tensor {name!r} of shape {_show(shape)}, which the file lacks{hint}")


def _show(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape[:8]))}{', ...' if len(shape) > 8 else ''}]"
