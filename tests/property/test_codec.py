"""Whatever plan goes in comes out, and both implementations of the bit coder write the same bytes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fewbits.codec import _reference as reference
from fewbits.codec import _reference_fast as reference_fast
from fewbits.codec import _reference_small as reference_small
from fewbits.codec import coder, decode, encode, inspect
from fewbits.codec._dense import to_bytes
from fewbits.codec.coder import CODERS, PROFILES, layout
from fewbits.errors import FormatError
from fewbits.plan import Clustered, Dense, Entry, Masked, Plan

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


@st.composite
def masked(draw: st.DrawFn) -> Masked:
    shape = draw(SHAPES)
    count = math.prod(shape)
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    limit = float(torch.finfo(dtype).max)
    values = draw(st.lists(st.floats(-limit, limit, allow_nan=False), min_size=count, max_size=count))
    any_mask = st.lists(st.booleans(), min_size=count, max_size=count)
    flags = draw(any_mask | st.sampled_from([[True] * count, [False] * count]))
    data = torch.tensor(values, dtype=torch.float64).to(dtype).reshape(shape)
    return Masked(data, torch.tensor(flags, dtype=torch.bool).reshape(shape))


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ENTRIES: st.SearchStrategy[Entry] = st.one_of(clustered(), dense(), masked())
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
        elif isinstance(mine, Masked):
            assert isinstance(theirs, Masked)
            assert mine.data.dtype == theirs.data.dtype
            if not torch.equal(mine.mask, theirs.mask):
                return False
            if not np.array_equal(to_bytes(mine.data[mine.mask]), to_bytes(theirs.data[mine.mask])):
                return False
        else:
            assert isinstance(theirs, Dense)
            if mine.data.dtype != theirs.data.dtype or mine.shape != theirs.shape:
                return False
            if not np.array_equal(to_bytes(mine.data), to_bytes(theirs.data)):
                return False
    return True


@settings(max_examples=250)
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


@settings(max_examples=80)
@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_header_round_trip(header: dict[str, object]) -> None:
    assert inspect(encode(Plan({}), header=header)).header == header


@st.composite
def grids(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Levels with structure: a random share of zeros, a random spread, some rows empty."""
    shape = draw(FULL_SHAPES | st.tuples(st.integers(1, 3), st.integers(1, 12), st.just(3), st.just(3)))
    seed, spread = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.4, 1, 5, 100, 9000]))
    chance = np.random.default_rng(seed)
    levels = np.clip(np.round(chance.standard_normal(shape) * spread), -32767, 32767)
    levels *= chance.random(shape) < draw(st.sampled_from([0.05, 0.5, 1.0]))
    if draw(st.booleans()):
        levels = abs(levels)
    levels = np.ascontiguousarray(levels, np.int16).reshape(shape)
    return levels, min(int(levels.min()), 0), max(int(levels.max()), 0)


REFERENCES = {"levels": reference, "small": reference_small, "plain": reference_fast, "fast": reference_fast}


@pytest.mark.parametrize("kind", REFERENCES)
@settings(max_examples=100)
@given(grid=grids())
def test_both_implementations_write_the_same_levels(kind: str, grid: tuple[np.ndarray, int, int]) -> None:
    compiled = pytest.importorskip("fewbits.codec._coder")
    levels, lowest, highest = grid
    args = (*layout(levels.shape), lowest, highest)
    flat = levels.reshape(-1)
    data = getattr(compiled, f"{kind}_encode")(flat.data, *args)
    assert data == getattr(REFERENCES[kind], f"{kind}_encode")(flat.data, *args)
    if lowest < highest:
        for module in (compiled, REFERENCES[kind]):
            back = np.full(levels.size, 77, np.int16)
            getattr(module, f"{kind}_decode")(data, back.data, *args)
            assert np.array_equal(back, flat)


@pytest.mark.parametrize("filled", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_rows_of_several_segments(kind: str, filled: float) -> None:
    """300 kernels: more than the 256 units of a segment, whatever a unit is."""
    compiled = pytest.importorskip("fewbits.codec._coder")
    chance = np.random.default_rng(0)
    levels = np.round(chance.standard_normal(2700) * 2 * (chance.random(2700) < filled)).astype(np.int16)
    data = getattr(compiled, f"{kind}_encode")(levels.data, 1, 2700, 9, -9, 9)
    assert data == getattr(reference_fast, f"{kind}_encode")(levels.data, 1, 2700, 9, -9, 9)
    back = np.empty_like(levels)
    getattr(compiled, f"{kind}_decode")(data, back.data, 1, 2700, 9, -9, 9)
    assert np.array_equal(back, levels)


@pytest.mark.parametrize(("kind", "known"), [("plain", 3), ("fast", 5)])
def test_a_wrong_shape_is_one_error_in_both_implementations(kind: str, known: int) -> None:
    """A stream begins with its shape. With another one it means nothing, and both implementations say so alike."""
    modules = [pytest.importorskip("fewbits.codec._coder"), reference_fast]
    levels = np.zeros(63, np.int16)
    levels[[0, 4, 20]] = 2, -1, 3
    for kernel in (1, 7, 9):
        data = reference_fast.plain_encode(levels.data, 1, 63, kernel, -3, 3)
        for shape in range(7):
            told = set()
            for module in modules:
                back = np.zeros_like(levels)
                try:
                    getattr(module, f"{kind}_decode")(bytes([shape]) + data[1:], back.data, 1, 63, kernel, -3, 3)
                    told.add(back.tobytes())
                except ValueError:
                    told.add(b"refused")
            assert len(told) == 1
            assert shape < known or told == {b"refused"}


@settings(max_examples=40)
@given(grid=grids())
def test_both_implementations_expect_the_same(grid: tuple[np.ndarray, int, int]) -> None:
    compiled = pytest.importorskip("fewbits.codec._coder")
    flat = grid[0].reshape(-1)
    told = [np.zeros(flat.size, np.uint16) for _ in range(2)]
    for module, chances in zip((compiled, reference), told, strict=True):
        module.levels_chances(flat.data, chances.data, *layout(grid[0].shape))
    assert np.array_equal(*told)
    assert 22 <= told[0].min() <= told[0].max() <= 65514


@pytest.mark.parametrize("number", CODERS)
@settings(max_examples=60)
@given(grid=grids(), height=st.integers(1, 300))
def test_strips_hold_the_same_levels(number: int, grid: tuple[np.ndarray, int, int], height: int) -> None:
    levels, lowest, highest = grid
    assume(lowest < highest)
    one = CODERS[number]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "STRIP", height)
        jobs = one.encoding(levels, lowest, highest)
        columns = levels.size // layout(levels.shape)[0]
        assert len(jobs) == (-(-layout(levels.shape)[0] // max(1, height // columns)) if one.cut else 1)
        section = coder.joined([job() for job in reversed(jobs)][::-1])
        back, filling = one.decoding(section, levels.shape, lowest, highest)
        for job in reversed(filling):
            job()
    assert np.array_equal(back, levels)


@pytest.mark.parametrize(
    "sizes", [b"", b"\x02\x02\x09", b"\x80\x01\x00", b"\xff\xff\xff\xff\xff\x0f\x00\x00", b"\x82\x00\x00\x00"]
)
def test_strips_that_do_not_fit(sizes: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "STRIP", 4)
        with pytest.raises(FormatError, match="strips do not fit"):
            CODERS[3].decode(sizes + b"ab", (4, 4), -7, 7)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_bytes_do_not_depend_on_the_number_of_threads(profile: str) -> None:
    levels = torch.randint(-3, 4, (300, 8000), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(9.0))})
    data = encode(plan, profile=profile, threads=1)
    assert encode(plan, profile=profile, threads=3) == encode(plan, profile=profile) == data
    for threads in (1, 3, None):
        assert decode(data, plan.tensors(), threads=threads).equals(plan)
    assert {t.coder for t in inspect(data).tensors} == {profile, "numbers"}


def test_small_tensors_go_to_whichever_coder_makes_less_of_them() -> None:
    chance = np.random.default_rng(0)
    chosen = set()
    for _ in range(40):
        shape = tuple(chance.integers(1, 9, chance.integers(1, 5)))
        levels = (chance.integers(-3, 4, shape) * (chance.random(shape) < chance.random())).astype(np.int16)
        ((number, stream),) = (job() for job in coder.encoding(levels, -3, 3, "small"))
        sizes = {n: len(CODERS[n].encode(levels, -3, 3)) for n in (1, 3)}
        assert len(stream) == sizes[number] == min(sizes.values())
        chosen.add(number)
    assert chosen == {1, 3}


@settings(max_examples=100)
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


@pytest.mark.parametrize("kind", REFERENCES)
@settings(max_examples=150)
@given(noise=st.binary(max_size=40), shape=FULL_SHAPES, lowest=st.integers(-9, 0), highest=st.integers(0, 9))
def test_both_implementations_read_noise_alike(
    kind: str, noise: bytes, shape: tuple[int, ...], lowest: int, highest: int
) -> None:
    """Any bytes decode to levels within bounds or are refused, by both in the same way."""
    compiled = pytest.importorskip("fewbits.codec._coder")
    results = []
    for module in (compiled, REFERENCES[kind]):
        levels = np.zeros(math.prod(shape), np.int16)
        try:
            getattr(module, f"{kind}_decode")(noise, levels.data, *layout(shape), lowest, highest)
            assert lowest <= levels.min() <= levels.max() <= highest
            results.append(levels.tolist())
        except ValueError:
            results.append("refused")
    assert results[0] == results[1]


def test_the_backend_in_use_is_named() -> None:
    assert coder.backend() == ("python" if "_coder" not in getattr(coder.bits, "__name__", "") else "c")
