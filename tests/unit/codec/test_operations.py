"""What a network computes in place of its operations, in a file."""

from __future__ import annotations

import random
import struct

import pytest
import torch

from fewbits.approximation import Approximation, Pieces
from fewbits.codec import PartReader, decode, encode, inspect
from fewbits.codec import _operations as operations
from fewbits.codec._cursor import Cursor
from fewbits.errors import FormatError, RecipeError
from fewbits.ops import fit
from fewbits.plan import Dense, Plan

LIKE = {"w": torch.ones(3)}
MADE = [
    fit("gelu", error=1e-3),
    fit("exp", (-0.5, 0.25), degree=5),
    fit("log", degree=2),
    fit("silu", bits=7),
    fit("softmax", bits=8),
    fit("layer_norm", (-3, 3), bits=12),
    fit("rms_norm", pieces=9),
    fit("sigmoid", kind="table", pieces=300, outside="clamp"),
    fit("tanh", kind="squared-relu"),
]


def plan_with(*made: Approximation) -> Plan:
    return Plan({"w": Dense(torch.ones(3))}, approximations={one.operation: one for one in made})


def test_every_kind_comes_back_as_it_was() -> None:
    plan = plan_with(*MADE)
    data = encode(plan)
    found = decode(data, LIKE)
    assert found.equals(plan)
    assert found.approximations == plan.approximations
    assert found.digest() == plan.digest() != plan_with().digest()
    assert not found.equals(plan_with())
    told = inspect(data).operations
    assert [one.name for one in told] == [one.operation for one in MADE]
    assert told[0].bound == MADE[0].bound
    assert told[-1].bound is None


def test_a_file_without_any_is_what_it_was(tmp_path) -> None:
    assert len(encode(plan_with())) < len(encode(plan_with(MADE[-1])))
    assert inspect(encode(plan_with())).operations == ()
    path = tmp_path / "net.few"
    path.write_bytes(encode(plan_with(*MADE)))
    with PartReader(path) as reader:
        assert list(reader.plan(["w"])) == ["w"]


def test_a_tensor_cannot_have_the_name_of_the_operations() -> None:
    with pytest.raises(RecipeError, match="rename it"):
        encode(Plan({operations.NAME: Dense(torch.ones(2))}, approximations={"tanh": MADE[-1]}))
    with pytest.raises(RecipeError, match="cannot stand for 'gelu'"):
        Plan({}, approximations={"gelu": MADE[-1]})


def refused(packed: bytes) -> None:
    with pytest.raises(FormatError):
        operations.unpack(Cursor(packed))


def test_what_could_not_have_been_written_is_refused() -> None:
    whole = operations.pack({"gelu": MADE[0]})
    assert operations.unpack(Cursor(whole)) == {"gelu": MADE[0]}
    for end in range(len(whole)):
        refused(whole[:end])
    refused(b"\0")
    refused(b"\2" + 2 * operations.pack({"tanh": MADE[-1]})[1:])
    head = operations.pack({"tanh": MADE[-1]})
    for place, value in ((1, 200), (2, 6), (3, 32), (3, 1), (3, 2), (4, 5)):
        refused(head[:place] + bytes([value]) + head[place + 1 :])
    for place in (5, 9, 13, 17):  # units and bounds that are no numbers
        refused(head[:place] + struct.pack("<f", float("nan")) + head[place + 4 :])
    integer = bytearray(operations.pack({"silu": MADE[3]}))
    integer[-4:] = struct.pack("<f", 0.5)
    refused(bytes(integer))
    integer[-4:] = struct.pack("<f", 2.0**24)
    refused(bytes(integer))


def test_damage_is_refused_or_sound() -> None:
    chance = random.Random(0)
    whole = operations.pack({one.operation: one for one in MADE[:6]})
    for _ in range(800):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            found = operations.unpack(Cursor(bytes(damaged)))
        except FormatError:
            continue
        assert all(isinstance(one, Approximation) for one in found.values())


def test_pieces_are_checked_before_memory_is_taken() -> None:
    huge = operations.pack({"gelu": Approximation("gelu", "lines", Pieces((0.0, 1.0), ((0.0,),)))})
    at = 1 + 20
    refused(huge[:at] + b"\xff\x3f" + huge[at + 1 :])
