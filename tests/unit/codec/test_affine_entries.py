"""INT8 weights in a file: round trips, where their sections stand, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.codec import decode, encode, inspect, measure
from fewbits.codec._container import open_file
from fewbits.errors import NonFiniteError, RecipeError
from fewbits.plan import Affine, Dense, Plan


def entry(*shape: int, axis: int = 0, bits: int = 8, seed: int = 0) -> Affine:
    generator = torch.Generator().manual_seed(seed)
    top = 2 ** (bits - 1) - 1
    levels = torch.randint(-top, top + 1, shape, generator=generator).to(torch.int8)
    return Affine(levels, torch.rand(shape[axis], generator=generator) + 1e-6, axis, bits)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(2, 8), st.integers(0, 99), st.data())
def test_round_trip(shape, bits, seed, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    plan = Plan({"a": entry(*shape, axis=axis, bits=bits, seed=seed), "b": Dense(torch.ones(3))})
    for profile in ("small", "fast"):
        back = decode(encode(plan, profile=profile), plan.tensors())
        assert back.equals(plan)
        assert torch.equal(back.affine["a"].scales, plan.affine["a"].scales)
        assert (back.affine["a"].axis, back.affine["a"].bits) == (axis, bits)
        assert encode(back, profile=profile) == encode(plan, profile=profile)


def test_sections_and_summary():
    plan = Plan({"a": entry(6, 10), "bias": Dense(torch.arange(6.0)), "many": entry(5000, 2), "one": entry(1, 1)})
    data = encode(plan)
    contents = open_file(data)
    assert [(s.members, s.levels) for s in contents.sections] == [
        ((0,), True),
        ((0, 1, 3), False),  # small scales share the section of the small float32 tensors
        ((2,), True),
        ((2,), False),
        ((3,), True),
    ]
    assert [r.kind for r in contents.records] == [0x50, 0x12, 0x40, 0x50]
    first, bias, *_ = inspect(data).tensors
    assert (first.kind, first.bits, first.dtype, first.clusters, first.count) == ("affine", 8, None, 255, 60)
    assert (bias.kind, bias.dtype) == ("dense", "float32")
    assert len(measure(data)) == 5


def test_other_files_have_the_bytes_they_had():
    assert 0x40 not in [r.kind & 0x40 for r in open_file(encode(Plan({"w": Dense(torch.zeros(3))}))).records]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scales": torch.tensor([1.0, float("nan")])}, NonFiniteError, "NaN or infinity"),
        ({"scales": torch.tensor([1.0, 0.0])}, RecipeError, "scale that is not positive"),
        ({"levels": torch.full((2, 3), -128, dtype=torch.int8)}, RecipeError, "outside its 8-bit grid -127..127"),
        ({"levels": torch.zeros((2, 0), dtype=torch.int8)}, RecipeError, "is empty"),
    ],
)
def test_what_no_file_holds(change, error, message):
    values = {"levels": torch.zeros((2, 3), dtype=torch.int8), "scales": torch.ones(2)}
    with pytest.raises(error, match=message):
        encode(Plan({"w": Affine(**(values | change))}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((torch.zeros(2, 3), torch.ones(2)), "int8 levels and float32 scales"),
        ((torch.zeros(2, 3, dtype=torch.int8), torch.ones(3)), r"scales of shape \(3,\) along axis 0"),
        ((torch.zeros(2, 3, dtype=torch.int8), torch.ones(3), 2), "along axis 2"),
        ((torch.zeros(2, 3, dtype=torch.int8), torch.ones(2), 0, 9), "2..8 bits"),
    ],
)
def test_what_is_no_affine_tensor(values, message):
    with pytest.raises(RecipeError, match=message):
        Affine(*values)


def test_equal_values_on_another_grid_are_another_plan():
    levels = torch.tensor([[2, 4]], dtype=torch.int8)
    one, two = Affine(levels, torch.tensor([1.0])), Affine(levels // 2, torch.tensor([2.0]))
    assert torch.equal(one.values(), two.values())
    assert not Plan({"w": one}).equals(Plan({"w": two}))
    assert Plan({"w": one}).equals(Plan({"w": Affine(levels.clone(), torch.tensor([1.0]))}))
