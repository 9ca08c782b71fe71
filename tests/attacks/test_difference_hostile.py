"""Numbered hostile files of differences, and of several networks (see README.md): each refused in one sentence."""

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from seal import mutate, seal

from fewbits import codec
from fewbits.codec import FamilyReader, base_of, decode, encode, family, inspect
from fewbits.codec._cursor import varint
from fewbits.codec.coder import MIXING
from fewbits.errors import BaseError, FileError, FormatError, MismatchError, UnsupportedError
from fewbits.plan import Affine, Clustered, Dense, Plan

STEP = struct.pack("<f", 0.5)
LIKE = {"w": torch.zeros(2, 3), "v": torch.zeros(4), "n": torch.zeros(3, dtype=torch.int64)}
BASE = encode(
    Plan(
        {
            "w": Clustered(torch.tensor([[0, 1, 0], [0, 0, -2]], dtype=torch.int16), 4, step=0.5),
            "v": Dense(torch.arange(4.0)),
            "n": Dense(torch.arange(3)),
        }
    )
)
ORIGIN = base_of(BASE)
CHUNK = MIXING.encode(np.array([[0, 1, 0], [0, 0, -2]], np.int16), -7, 7)
TOGETHER = MIXING.encode(np.array([0, 1, 0, 0, 0, -2, 1, 0, 0, 3], np.int16), -7, 7)
BEYOND = MIXING.encode(np.array([0, 0, 0, 0, 0, 0, 7, 0, 0, 0], np.int16), -7, 7)
BOOK = struct.pack("<h", -1) + b"\3" + struct.pack("<3f", -0.5, 0, 0.5)
SAME, ABSENT, CLUSTERED, SHARED = 66, 67, 0, 16


def head(
    marks: bytes = bytes([CLUSTERED, SAME, SAME]),
    names: Sequence[bytes] = (),
    own: bytes = b"",
    identity: bytes = ORIGIN.identity,
    user: bytes = b"",
    count: int | None = None,
    tail: bytes = b"\4" + STEP + b"\1" + varint(len(CHUNK)),
) -> bytes:
    """A head of differences in its raw form; every argument may lie. ``own`` has kinds, ranks, sizes, other names."""
    return b"".join(
        [
            b"\2",
            identity,
            varint(len(user)) + user,
            b"\0",
            varint(len(marks) if count is None else count),
            marks,
            varint(len(names)),
            *(name + b"\0" for name in names),
            own,
            tail,
        ]
    )


def of(chunk: bytes = CHUNK, **lies: object) -> bytes:
    return seal(head(**lies), [chunk])  # type: ignore[arg-type]


def to_itself() -> bytes:
    """A file that says that it is its own base: its hash cannot be what its head says, so it is forged."""
    data = of(identity=bytes(16))
    return data[:-16] + bytes(16)


FORMAT: dict[str, bytes] = {
    "123 head of differences that ends in its base": seal(b"\2" + ORIGIN.identity[:7]),
    "124 head of differences without content": seal(b"\2" + ORIGIN.identity + b"\0"),
    "125 header of differences beyond its head": seal(b"\2" + ORIGIN.identity + b"\xff\x7f{}"),
    "126 header of differences that is no JSON": of(user=b"{"),
    "127 more marks than the base has tensors": of(marks=bytes([CLUSTERED, SAME, SAME, SAME])),
    "128 fewer marks than the base has tensors": of(marks=bytes([CLUSTERED, SAME])),
    "129 marks for another number of tensors": of(count=2),
    "130 difference of an unknown kind": of(marks=bytes([0x44, SAME, SAME]), tail=b""),
    "131 difference that is narrowed": of(marks=bytes([15, SAME, SAME])),
    "132 difference of integers with scales": of(marks=bytes([0x40, SAME, SAME])),
    "133 difference of integers": of(marks=bytes([2 + 8, SAME, SAME]), tail=b"\2" + varint(1)),
    "134 difference to integers": of(marks=bytes([SAME, SAME, CLUSTERED])),
    "135 same, with a storage": of(marks=bytes([SAME | 0x10, SAME, SAME])),
    "136 mark of another name": of(marks=bytes([65, SAME, SAME])),
    "137 tensor alone that the base has, too": of(names=[b"v"], own=b"\0\1\4"),
    "138 two tensors alone of one name": of(names=[b"x", b"x"], own=b"\0\0\1\1\4\4"),
    "139 tensor alone with shared levels": of(names=[b"x"], own=b"\x10\1\4", tail=b"\4\4" + STEP * 2 + b"\1\1\1\1"),
    "140 tensor alone that is narrowed": of(names=[b"x"], own=b"\x0f\1\4"),
    "141 another name of an absent tensor": of(
        marks=bytes([CLUSTERED, ABSENT, SAME]), names=[b"x"], own=b"\x41" + varint(1)
    ),
    "142 another name of no tensor": of(names=[b"x"], own=b"\x41" + varint(4)),
    "153 another name taken away that the base lacks": of(names=[b"x"], own=b"\x41" + varint(3)),
    "154 tensor's own name taken away": of(names=[b"v"], own=b"\x41" + varint(3)),
    "143 another name that is the base's": of(names=[b"v"], own=b"\x41" + varint(0)),
    "144 content of differences with bytes left over": of(tail=b"\4" + STEP + b"\1" + varint(len(CHUNK)) + b"x"),
    "145 shared codebooks": of(marks=bytes([1 | SHARED, SAME, SAME]), tail=b"\2" + BOOK + b"\1\1"),
    "146 shared levels beyond the bounds of their tensor": seal(
        head(bytes([SHARED, SHARED, SAME]), tail=b"\4\3" + STEP * 2 + b"\1" + varint(len(BEYOND))), [BEYOND]
    ),
    "147 shared levels without bytes": seal(
        head(bytes([SHARED, SHARED, SAME]), tail=b"\4\4" + STEP * 2 + b"\1" + varint(3)), [b"\0\0\0"]
    ),
    "148 step of a difference that is NaN": of(tail=b"\4" + struct.pack("<f", float("nan")) + b"\1\1"),
}  # fmt: skip
MISMATCH: dict[str, bytes] = {
    "122 differences whose base is their own forged hash": to_itself(),
    "149 differences to another base": of(identity=bytes(16)),
    "150 length bomb: 2 ** 40 equal numbers beside differences": seal(
        head(
            names=[b"x"],
            own=b"\x20\1" + varint(1 << 40),
            tail=b"\4\4" + STEP * 2 + b"\0\0" + b"\1" + varint(len(CHUNK)),
        ),
        [CHUNK],
    ),
    "151 tensor that the network has, absent": of(marks=bytes([CLUSTERED, ABSENT, SAME])),
    "152 foreign name beside differences": seal(
        head(names=[b"x"], own=b"\x20\0", tail=b"\4\4" + STEP * 2 + b"\0\0" + b"\1" + varint(len(CHUNK))), [CHUNK]
    ),
}


@pytest.mark.parametrize("name", FORMAT | MISMATCH)
def test_hostile_differences(name: str) -> None:
    data = (FORMAT | MISMATCH)[name]
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(FormatError if name in FORMAT else MismatchError) as caught:
            decode(data, LIKE, base=ORIGIN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5
    assert peak < 1_000_000
    assert 10 < len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_without_a_lie_the_same_builders_give_files_that_decode() -> None:
    found = decode(of(), LIKE, base=ORIGIN)
    assert torch.equal(found["w"].values(), torch.tensor([[0, 1.0, 0], [0, 0, -2]]))
    together = head(bytes([SHARED, SHARED, SAME]), tail=b"\4\4" + STEP * 2 + b"\1" + varint(len(TOGETHER)))
    found = decode(seal(together, [TOGETHER]), LIKE, base=ORIGIN)
    assert torch.equal(found["v"].values(), torch.tensor([0.5, 1.0, 2.0, 4.5]))
    named = head(names=[b"x"], own=b"\x41" + varint(1))
    assert decode(seal(named, [CHUNK]), LIKE | {"x": torch.zeros(4)}, base=ORIGIN).aliases == {"x": "v"}
    assert inspect(of(user=b'{"a":1}')).header == {"a": 1}


DIFFERENCES = of()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: decode(DIFFERENCES, LIKE), BaseError, [ORIGIN.identity.hex(), "base="]),
        (
            lambda: decode(DIFFERENCES, LIKE, base=base_of(encode(ORIGIN.plan, header={"a": 1}))),
            BaseError,
            [ORIGIN.identity.hex(), encode(ORIGIN.plan, header={"a": 1})[-16:].hex()],
        ),
        (lambda: base_of(DIFFERENCES), BaseError, [DIFFERENCES[-16:].hex(), ORIGIN.identity.hex()]),
        (lambda: base_of(to_itself()), BaseError, ["holds differences itself"]),
        (lambda: decode(BASE, LIKE, base=ORIGIN), BaseError, ["stands alone"]),
        (lambda: codec.PartReader(DIFFERENCES), BaseError, [ORIGIN.identity.hex()]),
        (lambda: base_of(encode(_integers())), UnsupportedError, ["integer activations"]),
        (lambda: decode(DIFFERENCES, LIKE | {"w": torch.zeros(3, 3)}, base=ORIGIN), MismatchError, ["'w'", "[3, 3]"]),
        (lambda: base_of(family({"a": BASE})), MismatchError, ["several networks"]),
    ],
)  # fmt: skip
def test_a_missing_a_wrong_and_an_impossible_base_are_named(
    make: Callable[[], object], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


def _integers() -> Plan:
    return Plan({"w": Affine(torch.ones(2, 3, dtype=torch.int8), torch.ones(2))})


def directory(
    names: Sequence[bytes] = (b"a", b"b"),
    bases: Sequence[int] = (0, 1),
    sizes: Sequence[int] = (len(BASE), len(DIFFERENCES)),
    count: int | None = None,
    tail: bytes = b"",
) -> bytes:
    return b"".join(
        [
            b"\3" + varint(len(names) if count is None else count),
            *(name + b"\0" for name in names),
            *map(varint, bases),
            *map(varint, sizes),
            tail,
        ]
    )


FAMILIES: dict[str, bytes] = {
    "153 no networks": seal(directory((), (), ())),
    "154 two networks of one name": seal(directory((b"a", b"a")), [BASE, DIFFERENCES]),
    "155 network with a path for a name": seal(directory((b"a", b"../b")), [BASE, DIFFERENCES]),
    "156 network that is its own base": seal(directory(bases=(0, 2)), [BASE, DIFFERENCES]),
    "157 networks that are each other's bases": seal(directory(bases=(2, 1)), [BASE, DIFFERENCES]),
    "158 base that is not there": seal(directory(bases=(0, 3)), [BASE, DIFFERENCES]),
    "159 networks larger than the file": seal(directory(sizes=(1 << 40, 5)), [BASE, DIFFERENCES]),
    "160 networks smaller than the file": seal(directory(sizes=(5, 5)), [BASE, DIFFERENCES]),
    "161 65535 networks": seal(directory(count=65535), [BASE, DIFFERENCES]),
    "162 directory of networks with bytes left over": seal(directory(tail=b"x"), [BASE, DIFFERENCES]),
    "163 one network": BASE,
    "164 nothing": b"",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_hostile_families(name: str) -> None:
    with pytest.raises(FileError) as caught:
        FamilyReader(FAMILIES[name])
    assert 10 < len(str(caught.value)) < 400


def test_a_family_whose_directory_lies_about_a_base_is_refused_where_it_is_read() -> None:
    other = encode(ORIGIN.plan, header={"a": 1})
    data = seal(directory(sizes=(len(other), len(DIFFERENCES))), [other, DIFFERENCES])
    with FamilyReader(data) as reader, pytest.raises(BaseError):
        decode(reader.member("b"), LIKE, base=base_of(reader.member("a")))
    differing = seal(directory(bases=(0, 1), sizes=(len(DIFFERENCES),) * 2), [DIFFERENCES, DIFFERENCES])
    with FamilyReader(differing) as reader, pytest.raises(BaseError, match="holds differences itself"):
        base_of(reader.member("a"))


def test_a_family_in_a_family_is_refused() -> None:
    with pytest.raises(MismatchError, match="several networks"):
        family({"a": family({"b": BASE})})
    inner = family({"b": BASE})
    data = seal(directory((b"a",), (0,), (len(inner),)), [inner])
    with FamilyReader(data) as reader, pytest.raises(MismatchError, match="several networks"):
        decode(reader.member("a"), LIKE)


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Bytes of the file, of its head and content, and of its sections, behind repaired checksums."""
    chance = random.Random(seed)
    together = head(bytes([SHARED, SHARED, SAME]), tail=b"\4\4" + STEP * 2 + b"\1" + varint(len(TOGETHER)))
    sources = [(head(), CHUNK), (together, TOGETHER), (head(names=[b"x"], own=b"\x41" + varint(1)), CHUNK)]
    for _ in range(count):
        stored, chunk = chance.choice(sources)
        match chance.randrange(4):
            case 0:
                yield mutate(seal(stored, [chunk]), chance)
            case 1:
                yield seal(stored, [mutate(chunk, chance)])
            case _:
                yield seal(stored[:17] + mutate(stored[17:], chance), [chunk])


@pytest.mark.parametrize("count", [1500, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_damaged_file_is_refused_or_obeys_its_rules(count: int) -> None:
    like = LIKE | {"x": torch.zeros(4)}
    decoded, words = 0, set()
    for data in mutants(count, seed=count):
        try:
            found = decode(data, like if chance_of(data) else LIKE, base=ORIGIN)
        except FileError as error:
            words.add(str(error)[:30])
            continue
        decoded += 1
        for name, tensor in found.tensors().items():
            assert tensor.shape == like[name].shape
            assert bool(torch.isfinite(tensor).all())
        for entry in found.clustered.values():
            assert int(entry.levels.abs().max()) < 2 ** (entry.bits - 1)
    assert decoded > count / 100
    assert len(words) > 15


def chance_of(data: bytes) -> bool:
    """Half of the files are compared with a network that has another tensor."""
    return data[-1] % 2 == 0
