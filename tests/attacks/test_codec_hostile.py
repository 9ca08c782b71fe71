"""Numbered hostile files (see README.md): each has sound checksums and must be refused in one sentence."""

import struct
import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from seal import check, raw_head, seal

from fewbits.channel_masks import ChannelMasks
from fewbits.codec import _dense as dense_codec
from fewbits.codec import decode, encode, inspect
from fewbits.codec._container import MAGIC
from fewbits.codec._cursor import varint
from fewbits.codec._directory import PRIME, bits
from fewbits.codec.coder import MIXING
from fewbits.errors import FileError, FormatError, MismatchError
from fewbits.plan import Affine, Clustered, Dense, Masked, Plan

LIKE = {"w": torch.zeros(2, 3), "v": torch.zeros(4)}
ONE = {"w": torch.zeros(2, 3)}
STEP = struct.pack("<f", 0.5)


def coded_head(content: bytes, size: int | None = None) -> bytes:
    stream = bits.bytes_encode(content, 0, PRIME)
    return b"\1" + varint(len(content) if size is None else size) + stream


def step(value: float) -> bytes:
    return seal(raw_head(values=struct.pack("<f", value)), [b"\x55"])


def codebook(lowest: int, size: int, values: bytes, shape: tuple[int, ...] = (2, 3)) -> bytes:
    packed = struct.pack("<h", lowest) + varint(size) + values
    return seal(raw_head(kinds=b"\x01", shapes=[shape], values=packed), [b"\x55"])


def dense(kind: int, chunk: bytes, shape: tuple[int, ...] = (2, 3)) -> bytes:
    head = raw_head(kinds=bytes([kind]), shapes=[shape], widths=b"", values=b"", coders=b"\x02", sizes=[len(chunk)])
    return seal(head, [chunk])


def constant(kind: int, element: bytes, widths: bytes = b"", values: bytes = b"") -> bytes:
    return seal(raw_head(kinds=bytes([kind]), widths=widths, values=values, constants=element, coders=b"", sizes=[]))


def masked(survivors: int | bytes, mask: bytes, numbers: bytes, kind: int = 0x0C) -> bytes:
    """A masked float32 tensor of 6 elements; the number of survivors as it is or as bytes."""
    chunks = [chunk for chunk in (mask, numbers) if chunk]
    coders = b"\x01" * bool(mask) + b"\x02" * bool(numbers)
    head = raw_head(
        kinds=bytes([kind]),
        widths=b"",
        values=survivors if isinstance(survivors, bytes) else varint(survivors),
        coders=coders,
        sizes=list(map(len, chunks)),
    )
    return seal(head, chunks)


def narrowed(column: bytes, shape: tuple[int, ...] = (2, 3), names: list[bytes] | None = None) -> bytes:
    """Tensors with a step that lost channels, as this column says; the rest of it is sound for rows of 3 levels."""
    count = len(names or [b"w"])
    head = raw_head(
        names or [b"w"],
        b"\x0f" * count,
        [shape] * count,
        column + b"\4" * count,
        STEP * count,
        coders=b"\x01" * count,
        sizes=[len(ROW)] * count,
    )
    return seal(head, [ROW] * count)


ROW = MIXING.encode(np.array([[1, 0, -2]], np.int16), -7, 7)
FIRST_ROW = ChannelMasks({"w": (torch.tensor([True, False]), None)}, {})


LEVELS = MIXING.encode(np.array([[5, 0, -3], [0, 127, 1]], np.int16), -127, 127)


def affine(
    bits: int = 8, axis: int = 0, scales: bytes = struct.pack("<2f", 0.5, 2), kind: int = 0x50, levels: bytes = LEVELS
) -> bytes:
    """An affine tensor of 2x3 levels with a scale per row."""
    numbers = dense_codec.encode(np.frombuffer(scales, np.uint8).reshape(-1, 4), torch.float32) if scales else b"\0"
    head = raw_head(
        kinds=bytes([kind]), widths=b"", values=bytes([bits, axis]), coders=b"\1\2", sizes=[len(levels), len(numbers)]
    )
    return seal(head, [levels, numbers])


MASK = MIXING.encode(np.array([[1, 0, 0], [0, 0, 1]], np.int16), 0, 1)


def named(target: int = 0, kinds: bytes = b"\0\x41", shapes: Sequence[Sequence[int]] = ((2, 3), ())) -> bytes:
    """A tensor with a step, and another name that it has."""
    head = raw_head([b"w", b"v"], kinds, shapes, varint(target) + b"\4", sizes=[len(SPARSE)])
    return seal(head, [SPARSE])


SPARSE = MIXING.encode(np.array([[0, 1, 0], [0, 0, -2]], np.int16), -7, 7)


def with_user(text: bytes) -> bytes:
    return seal(raw_head(user=text), [b"\x55"])


def forged_hash() -> bytes:
    data = bytearray(seal(raw_head(), [b"\x55"]))
    data[-1] ^= 1
    return bytes(data)


TWO = {
    "names": [b"w", b"w"],
    "kinds": b"\0\0",
    "shapes": [(2, 3), (2, 3)],
    "widths": b"\4\4",
    "values": STEP * 2,
}

FORMAT = {
    "01 empty file": b"",
    "02 signature only": MAGIC,
    "03 wrong signature": seal(raw_head(), [b"\x55"], magic=b"\x89PNG\r\n\x1a\n"),
    "04 newer version": seal(raw_head(), [b"\x55"], version=2),
    "05 version 0": seal(raw_head(), [b"\x55"], version=0),
    "06 forged hash": forged_hash(),
    "07 trailing garbage": seal(raw_head(), [b"\x55"]) + b"garbage",
    "08 trailing garbage inside the hash": seal(raw_head(), [b"\x55", b"more"]),
    "09 head longer than the file": MAGIC + struct.pack("<HI", 1, 2**32 - 1) + bytes(40),
    "10 empty head": seal(b""),
    "11 head of unknown form": seal(b"\x07" + raw_head()[1:], [b"\x55"]),
    "12 coded head that claims 2 MiB": seal(coded_head(b"", size=2 << 20)),
    "13 coded head that claims 2 ** 60": seal(coded_head(b"", size=2**60)),
    "14 coded head with bytes left over": seal(coded_head(raw_head()[1:]) + b"zzzzzzzz", [b"\x55"]),
    "15 65536 tensors": seal(raw_head(count=65536), [b"\x55"]),
    "16 more tensors than names": seal(raw_head(count=9), [b"\x55"]),
    "17 duplicate names": seal(raw_head(**TWO, coders=b"\1\1", sizes=[1, 1]), [b"\x55", b"\x55"]),
    "18 name that is no text": seal(raw_head(names=[b"\xff\xfe"]), [b"\x55"]),
    "19 name of 1 MB": seal(raw_head(names=[b"n" * 1_000_000]), [b"\x55"]),
    "20 unknown kind": narrowed(b"\x0f\1\1\0\0"),
    "21 unknown storage": seal(raw_head(kinds=b"\x30"), [b"\x55"]),
    "22 shared levels": seal(raw_head(kinds=b"\x10"), [b"\x55"]),
    "23 255 dimensions": seal(raw_head(shapes=[[1] * 255]), [b"\x55"]),
    "24 dimension of 2 ** 63 (negative as int64)": seal(raw_head(shapes=[(2**63, 3)]), [b"\x55"]),
    "25 2 ** 64 numbers by product": seal(raw_head(shapes=[(2**32, 2**32)]), [b"\x55"]),
    "26 number in a long form": seal(raw_head().replace(b"\x02\x03", b"\x82\x00\x03"), [b"\x55"]),
    "27 empty tensor with a section": seal(raw_head(shapes=[(0, 3)]), [b"\x55"]),
    "28 bits = 1": seal(raw_head(widths=b"\x01"), [b"\x55"]),
    "29 bits = 17": seal(raw_head(widths=b"\x11"), [b"\x55"]),
    "30 step = 0": step(0.0),
    "31 step = -1": step(-1.0),
    "32 step = NaN": step(float("nan")),
    "33 step = infinity": step(float("inf")),
    "69 step that overflows": step(6e37),
    "34 empty codebook": codebook(0, 0, b""),
    "35 codebook that is too long for its bits": codebook(0, 17, STEP * 17),
    "36 codebook that runs past int16": codebook(32760, 16, STEP * 16),
    "37 codebook with NaN": codebook(-1, 3, struct.pack("<3f", -1, float("nan"), 1)),
    "38 codebook cut off": codebook(-1, 16, STEP),
    "39 constant level out of range": constant(0x20, struct.pack("<h", 8), b"\4", STEP),
    "40 constant number that is NaN": constant(0x22, struct.pack("<f", float("nan"))),
    "41 constant truth value 2": constant(0x2B, b"\2"),
    "42 unknown coder of levels": seal(raw_head(coders=b"\x09"), [b"\x55"]),
    "43 unknown coder of numbers": seal(raw_head(kinds=b"\x12", widths=b"", values=b"", coders=b"\x01"), [b"\x55"]),
    "44 section longer than the file": seal(raw_head(sizes=[2**40]), [b"\x55"]),
    "45 section shorter than its bytes": seal(raw_head(sizes=[0]), [b"\x55"]),
    "46 levels with bytes left over": seal(raw_head(sizes=[400]), [b"\x55" * 400]),
    "47 numbers without bytes": dense(0x12, b""),
    "48 numbers with too few bytes": dense(0x12, b"\0" + bytes(23)),
    "49 numbers with too many planes": dense(0x12, b"\5" + bytes(24)),
    "50 numbers with bytes left over": dense(0x12, b"\0" + bytes(24) + b"and more"),
    "51 numbers that are NaN": dense(0x12, b"\0" + b"\xff" * 24),
    "52 truth values beyond 1": dense(0x1B, b"\0\0\1\0\1\7\0"),
    "53 header that is no JSON": with_user(b"{"),
    "54 header that is a list": with_user(b"[1]"),
    "55 nested header": with_user(b"[" * 500_000),
    "56 nested header in an object": with_user(b'{"a":' * 200_000),
    "57 header with NaN": with_user(b'{"a":NaN}'),
    "58 header with a key twice": with_user(b'{"a":1,"a":2}'),
    "59 header that is no text": with_user(b'{"a":"\xff"}'),
    "60 header of 2 MB": with_user(b'{"a":"' + b"x" * 2_000_000 + b'"}'),
    "61 header with an endless number": with_user(b'{"a":' + b"9" * 900_000 + b"}"),
    "62 sections that overlap": seal(
        raw_head([b"w", b"v"], b"\0\0", [(2, 3), (4,)], b"\4\4", STEP * 2, coders=b"\1\1", sizes=[1, 4]),
        [b"\x55", b"\x55"],
    ),
}

FORMAT |= {
    "70 more survivors than elements": masked(7, b"", b"\0" + bytes(28)),
    "71 mask with more survivors than numbers": masked(1, MASK, b"\0" + bytes(4)),
    "72 mask with fewer survivors than numbers": masked(3, MASK, b"\0" + bytes(12)),
    "73 survivor that is NaN": masked(2, MASK, b"\0" + b"\xff" * 8),
    "74 survivors without bytes": masked(2, MASK, b"\0"),
    "75 mask without bytes for it": masked(2, b"", b"\0" + bytes(8)),
    "76 masked integers": masked(2, MASK, b"\0" + bytes(8), kind=0x0F),
    "77 constant masked tensor": masked(2, MASK, b"\0" + bytes(8), kind=0x2C),
    "78 no survivors, yet a shared section": masked(0, b"", b"", kind=0x1C),
    "79 survivors in a long form": masked(b"\x82\x00", MASK, b"\0" + bytes(8)),
    "80 mask that is all true, coded": masked(6, MASK, b"\0" + bytes(24)),
}

# A narrowed tensor [2, 3] of which row 0 is left: its kind, a new mask 01 for rows, all columns, no padding layers.
FORMAT |= {
    "81 narrowed tensor that lost nothing": narrowed(b"\0\0\0\0"),
    "82 kept channels that are all": narrowed(b"\0\1\3\0\0"),
    "83 kept channels that are none": narrowed(b"\0\1\0\0\0"),
    "84 kept channels beyond the dimension": narrowed(b"\0\1\5\0\0"),
    "85 kept channels without bytes, 2 ** 40 of them": narrowed(b"\0\1\1\0\0", (2**40, 3)),
    "86 kept channels that were never named": narrowed(b"\0\2\0\0"),
    "87 kept channels of another dimension": narrowed(b"\0\1\1\2\0"),
    "88 narrowed twice": narrowed(b"\x0f\1\1\0\0"),
    "89 padding layer named twice": narrowed(b"\0\1\1\0" + b"\2p\0\1\1p\0\1\1"),
    "90 padding of 2 ** 60 channels": narrowed(b"\0\1\1\0" + b"\1p\0" + varint(2**60) + b"\0"),
    "91 more padding layers than bytes": narrowed(b"\0\1\1\0" + varint(65535)),
}

FORMAT |= {
    "94 affine with 9 bits": affine(bits=9),
    "95 affine with 1 bit": affine(bits=1),
    "96 scales along a dimension that is not there": affine(axis=2),
    "97 scale of zero": affine(scales=struct.pack("<2f", 1, 0)),
    "98 scale that is infinite": affine(scales=struct.pack("<2f", 1, float("inf"))),
    "99 affine without its scales": affine(scales=b""),
    "100 constant affine tensor": affine(kind=0x60),
    "101 kind 31": affine(kind=0x4F),
    "102 affine with more scales than channels": affine(scales=struct.pack("<3f", 1, 2, 3)),
    "103 another name of no tensor": named(1),
    "104 another name with dimensions of its own": named(shapes=[(2, 3), (2, 3)]),
    "105 another name before the tensor": named(kinds=b"\x41\0", shapes=[(), (2, 3)]),
    "106 another name with a section": named(kinds=b"\0\x51"),
}

MISMATCH = {
    "63 length bomb: 2 ** 40 levels": seal(raw_head(shapes=[(2**20, 2**20)]), [b"\x55"]),
    "64 length bomb: 2 ** 40 equal numbers": seal(
        raw_head(kinds=b"\x22", shapes=[(2**40,)], widths=b"", values=b"", constants=STEP, coders=b"", sizes=[])
    ),
    "65 zero numbers, endless other dimension": seal(
        raw_head(kinds=b"\x22", shapes=[(0, 2**47)], widths=b"", values=b"", coders=b"", sizes=[])
    ),
    "66 foreign name": seal(raw_head(names=[b"weigth"]), [b"\x55"]),
    "67 foreign name of 1000 letters": seal(raw_head(names=[b"w" * 1000]), [b"\x55"]),
    "92 channels of a larger network than this": narrowed(b"\0\1\1\0\0", (3, 3)),
    "93 one mask of 2 ** 22 channels for 5000 tensors": narrowed(
        b"\0\1" + b"\x55" * 2**19 + b"\0\2" * 4999 + b"\0", (2**22,), [str(i).encode() for i in range(5000)]
    ),
    "107 another name that the network lacks": named(),
    "68 no tensors": seal(raw_head([], b"", [], b"", b"", coders=b"", sizes=[])),
}


@pytest.mark.parametrize("name", [*FORMAT, *MISMATCH])
def test_hostile_file(name: str) -> None:
    data = (FORMAT | MISMATCH)[name]
    expected = FormatError if name in FORMAT else MismatchError
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(expected) as caught:
            decode(data, LIKE if name.startswith("62") else ONE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5
    assert peak < 40 * len(data) + 1_000_000
    message = str(caught.value)
    assert 10 < len(message) < 400
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in FORMAT if (n := int(name.split()[0])) < 39 or n in (44, 45)])
def test_inspect_refuses_it_too(name: str) -> None:
    with pytest.raises(FormatError):
        inspect(FORMAT[name])


def test_the_helper_makes_sound_files() -> None:
    """Without a lie, the same builders give files that decode: the refusals above have their stated cause."""
    levels = torch.tensor([[0, 1, 0], [0, 0, -2]], dtype=torch.int16)
    plan = Plan({"w": Clustered(levels, 4, step=0.5)})
    data = encode(plan)
    (tensor,) = inspect(data).tensors
    assert check(data[-18 - tensor.coded_bytes : -18]) == data[-18:-16]
    chunk = MIXING.encode(levels.numpy(), -7, 7)
    assert decode(seal(raw_head(sizes=[len(chunk)]), [chunk]), ONE).equals(plan)
    mask = torch.tensor([[True, False, False], [False, False, True]])
    two = Plan({"w": Masked(torch.zeros(2, 3), mask)})
    assert decode(masked(2, MASK, b"\0" + bytes(8)), ONE).equals(two)
    assert decode(masked(2, MASK, b"\0" + bytes(8), kind=0x1C), ONE).equals(two)
    one = Plan({"w": Clustered(torch.tensor([[1, 0, -2]], dtype=torch.int16), 4, step=0.5)}, FIRST_ROW)
    assert decode(narrowed(b"\0\1\1\0\0"), ONE).equals(one)
    assert decode(masked(0, b"", b""), ONE).equals(Plan({"w": Masked(torch.zeros(2, 3), mask & ~mask)}))
    integers = torch.tensor([[5, 0, -3], [0, 127, 1]], dtype=torch.int8)
    assert decode(affine(), ONE).equals(Plan({"w": Affine(integers, torch.tensor([0.5, 2.0]))}))
    assert decode(affine(kind=0x40), ONE).equals(decode(affine(), ONE))
    zeros = Plan({"w": Dense(torch.zeros(2, 3))})
    assert decode(constant(0x22, bytes(4)), ONE).equals(zeros)
    assert decode(dense(0x12, b"\0" + bytes(24)), ONE).equals(zeros)
    tensor = Clustered(torch.tensor([[0, 1, 0], [0, 0, -2]], dtype=torch.int16), 4, step=0.5)
    assert decode(named(), {"w": torch.zeros(2, 3), "v": torch.zeros(2, 3)}).equals(
        Plan({"w": tensor}, None, {"v": "w"})
    )
    assert inspect(with_user(b'{"a":[[1]]}')).header == {"a": [[1]]}
    with pytest.raises(FileError):
        decode(data, LIKE)
