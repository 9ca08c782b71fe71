"""Masked tensors in a file: which sections there are, and what they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewbits.codec import _dense as dense
from fewbits.codec import encode, inspect, measure
from fewbits.codec._container import open_file
from fewbits.codec.coder import CODERS
from fewbits.errors import NonFiniteError, RecipeError
from fewbits.plan import Clustered, Dense, Masked, Plan

MASK = torch.arange(60).reshape(6, 10) % 4 == 1
LARGE = torch.arange(5000).reshape(50, 100) % 9 != 0


def plan() -> Plan:
    ramp = torch.arange(5000, dtype=torch.float32)
    return Plan(
        {
            "a": Masked(ramp[:60].reshape(6, 10) + 0.5, MASK),
            "bias": Dense(ramp[:3] + 7),
            "large": Masked(ramp.reshape(50, 100), LARGE),
            "none": Masked(ramp[:4], torch.zeros(4, dtype=torch.bool)),
            "all": Masked(ramp[:4] - 2, torch.ones(4, dtype=torch.bool)),
            "half": Masked(ramp[:60].reshape(6, 10).half(), ~MASK),
            "levels": Clustered(MASK.to(torch.int16), 2, step=1.0),
        }
    )


def test_sections_stand_where_the_format_says() -> None:
    """docs/format.md, section 2: masks before their numbers; small tensors of one type share their numbers."""
    contents = open_file(encode(plan()))
    a, _bias, large, _none, everything, half, levels = range(7)
    assert [(s.members, s.levels) for s in contents.sections] == [
        ((a,), True),
        ((a, 1, everything), False),
        ((large,), True),
        ((large,), False),
        ((half,), True),
        ((half,), False),
        ((levels,), True),
    ]
    assert [r.survivors for r in contents.records] == [15, None, 4444, 0, 4, 45, None]
    assert [r.kind for r in contents.records] == [0x1C, 0x12, 0x0C, 0x0C, 0x1C, 0x1D, 0x00]


def test_what_the_sections_hold() -> None:
    contents = open_file(encode(plan()))
    mask = CODERS[contents.sections[0].coder].decode(contents.chunks[0], (6, 10), 0, 1)
    assert np.array_equal(mask == 1, MASK.numpy())
    rows = dense.decode(contents.chunks[1], 15 + 3 + 4, torch.float32)
    numbers = dense.from_bytes(rows, torch.float32, (22,)).tolist()
    assert numbers == [i + 0.5 for i in range(60) if i % 4 == 1] + [7, 8, 9] + [-2, -1, 0, 1]


def test_a_mask_costs_what_levels_of_it_cost() -> None:
    alone = len(open_file(encode(Plan({"w": Clustered(LARGE.to(torch.int16), 2, codebook=(0.0, 1.0))}))).chunks[0])
    assert len(open_file(encode(Plan({"w": Masked(LARGE.float(), LARGE)}))).chunks[0]) == alone


def test_inspect_and_measure() -> None:
    data = encode(plan())
    tensors = {t.name: t for t in inspect(data).tensors}
    assert {n: t.kind for n, t in tensors.items() if t.survivors is not None} == dict.fromkeys(
        ("a", "large", "none", "all", "half"), "masked"
    )
    assert (tensors["half"].bits, tensors["half"].dtype, tensors["none"].coded_bytes) == (16, "float16", 0)
    first = next(row for row in measure(data) if row.name == "a")
    assert first.count == 60
    assert first.entropy_bits == pytest.approx(-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))
    assert [row.count for row in measure(data)] == [60, 22, 5000, 4444, 60, 45, 60]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_survivors_must_be_finite_and_pruned_numbers_need_not(bad: float) -> None:
    numbers = torch.tensor([1.0, bad])
    encode(Plan({"w": Masked(numbers, torch.tensor([True, False]))}))
    with pytest.raises(NonFiniteError, match="'w'"):
        encode(Plan({"w": Masked(numbers, torch.tensor([False, True]))}))


def test_double_precision_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'w'.*float64"):
        encode(Plan({"w": Masked(torch.ones(2).double(), torch.ones(2, dtype=torch.bool))}))
