"""Whatever plan goes in comes out, and both implementations of the bit coder write the same bytes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.codec import coder, decode, encode, inspect, reference
from fewbits.codec.coder import layout
from fewbits.codec.dense import to_bytes
from fewbits.plan import Clustered, Dense, Entry, Plan

FLOATS = {torch.float32: 32, torch.float16: 16, torch.bfloat16: 16, torch.float64: 64}
INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
FULL_SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@st.composite
def clustered(draw: st.DrawFn) -> Clustered:
    shape = draw(SHAPES)
    bits = draw(st.integers(2, 16))
    with_codebook = draw(st.booleans())
    if with_codebook:
        size = draw(st.integers(1, min(2**bits, 20)))
        lowest = draw(st.integers(-32768, 32768 - size) | st.integers(-size, 1))
        highest = lowest + size - 1
    else:
        lowest, highest = 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    near_zero = st.integers(max(lowest, -2), min(highest, 2)) if lowest <= 2 and highest >= -2 else st.nothing()
    level = st.integers(lowest, highest) | near_zero | st.sampled_from([lowest, highest])
    count = math.prod(shape)
    levels = draw(st.lists(level, min_size=count, max_size=count))
    tensor = torch.tensor(levels, dtype=torch.int16).reshape(shape)
    if with_codebook:
        value = st.floats(-(2.0**100), 2.0**100, width=32)
        book = tuple(draw(st.lists(value, min_size=size, max_size=size)))
        return Clustered(tensor, bits, codebook=book, lowest=lowest)
    return Clustered(tensor, bits, step=draw(st.floats(2.0**-100, 2.0**100, width=32)))


@st.composite
def dense(draw: st.DrawFn) -> Dense:
    shape = draw(SHAPES)
    count = math.prod(shape)
    dtype = draw(st.sampled_from([*FLOATS, *INTEGERS, torch.bool]))
    if dtype in FLOATS:
        limit = float(torch.finfo(dtype).max)
        value: st.SearchStrategy[object] = st.floats(-limit, limit, allow_nan=False)
    elif dtype == torch.bool:
        value = st.booleans()
    else:
        info = torch.iinfo(dtype)
        value = st.integers(info.min, info.max)
    values = draw(st.lists(value, min_size=count, max_size=count) | st.just([1] * count))
    return Dense(torch.tensor(values, dtype=torch.float64 if dtype in FLOATS else dtype).to(dtype).reshape(shape))


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ENTRIES: st.SearchStrategy[Entry] = st.one_of(clustered(), dense())
PLANS = st.dictionaries(NAMES, ENTRIES, max_size=6).map(Plan)


def identical(a: Plan, b: Plan) -> bool:
    """Bit by bit, and with the attributes that ``Plan.equals`` leaves aside."""
    if list(a) != list(b):
        return False
    for name, mine in a.items():
        theirs = b[name]
        if isinstance(mine, Clustered):
            assert isinstance(theirs, Clustered)
            same = (mine.bits, mine.step, mine.codebook) == (theirs.bits, theirs.step, theirs.codebook)
            if not same or not torch.equal(mine.levels, theirs.levels):
                return False
            if mine.codebook is not None and mine.lowest != theirs.lowest:
                return False
        else:
            assert isinstance(theirs, Dense)
            if mine.data.dtype != theirs.data.dtype or mine.shape != theirs.shape:
                return False
            if not np.array_equal(to_bytes(mine.data), to_bytes(theirs.data)):
                return False
    return True


@settings(max_examples=250, deadline=None)
@given(PLANS)
def test_round_trip(plan: Plan) -> None:
    data = encode(plan)
    decoded = decode(data, {name: torch.empty(entry.shape) for name, entry in plan.items()})
    assert identical(plan, decoded)
    assert encode(decoded) == data
    summary = inspect(data)
    assert [(t.name, t.shape) for t in summary.tensors] == [(n, e.shape) for n, e in plan.items()]
    assert sum(t.coded_bytes for t in summary.tensors) + summary.overhead_bytes == len(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_header_round_trip(header: dict[str, object]) -> None:
    assert inspect(encode(Plan({}), header=header)).header == header


@st.composite
def grids(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Levels with structure: a random share of zeros, a random spread, some rows empty."""
    shape = draw(FULL_SHAPES)
    seed, spread = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.4, 1, 5, 100, 9000]))
    chance = np.random.default_rng(seed)
    levels = np.clip(np.round(chance.standard_normal(shape) * spread), -32767, 32767)
    levels *= chance.random(shape) < draw(st.sampled_from([0.05, 0.5, 1.0]))
    if draw(st.booleans()):
        levels = abs(levels)
    levels = np.ascontiguousarray(levels, np.int16).reshape(shape)
    return levels, min(int(levels.min()), 0), max(int(levels.max()), 0)


@settings(max_examples=150, deadline=None)
@given(grid=grids())
def test_both_implementations_write_the_same_levels(grid: tuple[np.ndarray, int, int]) -> None:
    compiled = pytest.importorskip("fewbits.codec._coder")
    levels, lowest, highest = grid
    args = (*layout(levels.shape), lowest, highest)
    flat = levels.reshape(-1)
    data = compiled.levels_encode(flat.data, *args)
    assert data == reference.levels_encode(flat.data, *args)
    if lowest < highest:
        for module in (compiled, reference):
            back = np.full(levels.size, 77, np.int16)
            module.levels_decode(data, back.data, *args)
            assert np.array_equal(back, flat)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 30), st.booleans(), st.binary(max_size=20), st.data())
def test_both_implementations_write_the_same_bytes(
    text: bytes, stride: int, planes: bool, prime: bytes, data: st.DataObject
) -> None:
    compiled = pytest.importorskip("fewbits.codec._coder")
    args = (stride if planes else 0, prime)
    coded = compiled.bytes_encode(text, *args)
    assert coded == reference.bytes_encode(text, *args)
    for module in (compiled, reference):
        back = bytearray(len(text))
        module.bytes_decode(coded, back, *args)
        assert back == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), FULL_SHAPES, st.integers(-9, 0), st.integers(0, 9))
def test_both_implementations_read_noise_alike(noise: bytes, shape: tuple[int, ...], lowest: int, highest: int) -> None:
    """Any bytes decode to levels within bounds or are refused, by both in the same way."""
    compiled = pytest.importorskip("fewbits.codec._coder")
    results = []
    for module in (compiled, reference):
        levels = np.zeros(math.prod(shape), np.int16)
        try:
            module.levels_decode(noise, levels.data, *layout(shape), lowest, highest)
            assert lowest <= levels.min() <= levels.max() <= highest
            results.append(levels.tolist())
        except ValueError:
            results.append("refused")
    assert results[0] == results[1]


def test_the_backend_in_use_is_named() -> None:
    assert coder.backend() == ("python" if coder.bits is reference else "c")
