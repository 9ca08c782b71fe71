"""Numbered files (see README.md) that nothing but their own bytes bounds: looked at in a moment, and not decoded."""

import struct
import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from seal import raw_head, seal

from fewbits.codec import decode, encode, examine, inspect, measure, shapes
from fewbits.codec._cursor import varint
from fewbits.codec.coder import FAST, MIXING, PLAIN, SMALL
from fewbits.errors import FormatError
from fewbits.plan import Clustered, Plan

STEP = struct.pack("<f", 0.5)


def nearly_zero(shape: Sequence[int]) -> np.ndarray:
    found = np.zeros(shape, np.int16)
    found.reshape(-1)[3] = 1
    return found


def levels(shape: tuple[int, ...], coder: int = 1, chunk: bytes = b"", bits: int = 2) -> bytes:
    """A tensor with a step. A stream without bytes is all ones: with coder 1 and 2 bits, -1 everywhere."""
    head = raw_head(shapes=[shape], widths=bytes([bits]), coders=bytes([coder]), sizes=[len(chunk)])
    return seal(head, [chunk])


def numbers(what: int, count: int, stream: bytes = b"") -> bytes:
    """A dense tensor of which every plane is coded, in so few bytes."""
    planes = {0: 4, 3: 8, 7: 4}[what]
    kind, chunk = 0x02 + what, bytes([planes]) + stream
    head = raw_head(kinds=bytes([kind]), shapes=[(count,)], widths=b"", values=b"", coders=b"\2", sizes=[len(chunk)])
    return seal(head, [chunk])


def masks(shape: tuple[int, ...]) -> bytes:
    head = raw_head(kinds=b"\x0c", shapes=[shape], widths=b"", values=varint(1), coders=b"\1\2", sizes=[0, 5])
    return seal(head, [b"", b"\0" + bytes(4)])


def affine(shape: tuple[int, ...]) -> bytes:
    scales = b"\4"
    head = raw_head(kinds=b"\x50", shapes=[shape], widths=b"", values=b"\2\0", coders=b"\1\2", sizes=[0, len(scales)])
    return seal(head, [b"", scales])


def several(count: int, shape: tuple[int, ...]) -> bytes:
    names = [b"%x" % i for i in range(count)]
    head = raw_head(
        names, b"\0" * count, [shape] * count, b"\2" * count, STEP * count, coders=b"\1" * count, sizes=[0] * count
    )
    return seal(head, [b""] * count)


def strips(coder: int, count: int) -> bytes:
    """As many strips as rows, of no bytes each, where the last one has the rest."""
    return levels((count, 1 << 20), coder, bytes(count - 1))


BOMBS = {
    "108 2 ** 24 levels of a file of 51 bytes": levels((1 << 12, 1 << 12)),
    "109 2 ** 24 levels in one row": levels((1 << 24,)),
    "110 2 ** 48 levels": levels((1 << 24, 1 << 24)),
    "111 2 ** 24 levels of coder 3": levels((1 << 12, 1 << 12), 3, b"\0"),
    "112 2 ** 24 levels of coder 5": levels((1 << 12, 1 << 12), 5, b"\0" + struct.pack("<2I", 1 << 16, 1 << 16)),
    "113 4000 strips without bytes": strips(3, 4000),
    "114 2 ** 24 numbers of which all planes are coded": numbers(0, 1 << 24),
    "115 2 ** 22 numbers of 8 bytes": numbers(3, 1 << 22),
    "116 mask of 2 ** 24": masks((1 << 12, 1 << 12)),
    "117 affine with 2 ** 24 levels": affine((1 << 12, 1 << 12)),
    "118 affine with 2 ** 22 scales": affine((1 << 22, 1)),
    "119 100 tensors of 2 ** 18 levels": several(100, (512, 512)),
    "120 half a million equal numbers, and an unknown coder": levels((1 << 19,), 99),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_looked_at_but_not_decoded(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    started = time.process_time()
    try:
        found = examine(data)
        for function in (shapes, measure):
            with pytest.raises(FormatError) as caught:
                function(data)
            assert 10 < len(str(caught.value)) < 300
            assert "without its network" in str(caught.value)
        assert time.process_time() - started < 0.5
        assert tracemalloc.get_traced_memory()[1] < 40 * len(data) + 1_000_000
    finally:
        tracemalloc.stop()
    assert found.sections == []
    assert found.left == str(caught.value)  # of measure
    assert found.summary == inspect(data)


BELOW = {
    "levels": levels((512, 512)),
    "levels in a row": levels((1 << 18,)),
    "levels of coder 3": levels((512, 512), 3, SMALL.encode(nearly_zero((512, 512)), -1, 1)),
    "levels of coder 4": levels((512, 512), 4, PLAIN.encode(nearly_zero((512, 512)), -1, 1)),
    "levels of coder 5": levels((512, 512), 5, FAST.encode(nearly_zero((512, 512)), -1, 1)),
    "numbers": numbers(7, 1 << 16),
}


@pytest.mark.parametrize("name", BELOW)
def test_what_is_below_the_bound_is_decoded_within_a_second(name: str) -> None:
    """2^18 numbers are free, whatever coder and however slow its stream: the worst that 60 bytes can ask for."""
    started = time.process_time()
    found = examine(BELOW[name])
    assert time.process_time() - started < 1
    assert found.left is None
    assert len(found.sections) == 1


def test_bombs_are_what_they_say() -> None:
    """The same builders within the bound give files that decode: what is refused above is refused for its size."""
    like = {"w": torch.zeros(3, 4)}
    assert decode(levels((3, 4)), like).equals(Plan({"w": Clustered(-torch.ones(3, 4, dtype=torch.int16), 2, 0.5)}))
    assert measure(levels((3, 4)))[0].entropy_bits == 0
    assert len(BOMBS["108 2 ** 24 levels of a file of 51 bytes"]) <= 51
    small = levels((2, 5), 3, SMALL.encode(nearly_zero((2, 5)), -1, 1))
    assert measure(small)[0].count == 10


def test_the_bound_grows_with_the_file() -> None:
    """Bytes that a header takes are bytes of the file: what they pay for stays in proportion to them."""
    shape = (1024, 1024)
    chunk = MIXING.encode(nearly_zero(shape), -1, 1)
    assert examine(levels(shape, 1, chunk)).left is not None
    padded = Plan({"w": Clustered(torch.from_numpy(nearly_zero(shape)), 2, step=0.5)})
    data = encode(padded, header={"x": "".join(map(chr, torch.randint(48, 122, (9000,)).tolist()))})
    assert (1 << 18) + 256 * len(data) > 1 << 20
    assert examine(data).left is None
