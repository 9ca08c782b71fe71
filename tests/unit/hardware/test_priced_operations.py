"""Swapped operations: steps are those that arithmetic on counted numbers takes, and their price is the table's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fewbits as fb
from fewbits import ops
from fewbits.approximation import Approximation
from fewbits.errors import RecipeError
from fewbits.hardware import layers, machine_of, not_priced, operations, price
from fewbits.hardware.arithmetic import arithmetic_of
from fewbits.hardware.operations import steps_of
from fewbits.ops._integer import EXPONENTIAL, FRACTION, LOG2E, POWER, UP
from fewbits.ops.swap import swap
from fewbits.plan import Dense, Plan

TABLE = arithmetic_of(machine_of("eyeriss"))
assert TABLE is not None


class Block(nn.Module):
    """Two operations on rows, one on values, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 10), nn.LayerNorm(10), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.gelu(self.norm(nn.functional.gelu(self.first(x))))
        return self.last(h).softmax(-1)


class Whole:
    """An integer that counts what is done with it, and how wide."""

    def __init__(self, value: int, counts: dict[tuple[str, int], int]) -> None:
        self.value, self.counts = value, counts

    def _done(self, what: str, value: int, other: Any) -> Whole:
        width = max(abs(self.value).bit_length(), abs(int(other)).bit_length())
        self.counts[what, width] = self.counts.get((what, width), 0) + 1
        return Whole(value, self.counts)

    def __int__(self) -> int:
        return self.value

    def __add__(self, other: Any) -> Whole:
        return self._done("add", self.value + int(other), other)

    def __sub__(self, other: Any) -> Whole:
        return self._done("add", self.value - int(other), other)

    def __mul__(self, other: Any) -> Whole:
        return self._done("multiply", self.value * int(other), other)


def counted(counts: dict[tuple[str, int], int], what: str) -> int:
    return sum(number for (kind, _), number in counts.items() if kind == what)


def of(steps: Any, what: str) -> int:
    return sum(number for (kind, _, _), number in steps.items() if kind == what)


@pytest.mark.parametrize("bits", [4, 8, 14])
@pytest.mark.parametrize("row", [2, 16, 300])
def test_an_integer_softmax_takes_what_a_row_by_hand_takes(bits: int, row: int) -> None:
    counts: dict[tuple[str, int], int] = {}
    levels = [Whole((37 * i) % (20 << (bits + 4)), counts) for i in range(row)]
    highest = levels[0]
    for one in levels:  # one comparison each
        if int(one - highest) > 0:
            highest = one
    powers = []
    for one in levels:
        down = highest - one
        down = down if int(down - (32 << (bits + 4))) < 0 else Whole(32 << (bits + 4), counts)
        z = down * LOG2E
        whole = min(int(z) >> (bits + 4 + UP), 31)
        rest = (int(z) - (int(z) >> (bits + 4 + UP) << (bits + 4 + UP))) >> (bits + 4 + UP - FRACTION)
        found = Whole(EXPONENTIAL[0], counts)
        for coefficient in EXPONENTIAL[1:]:
            found = Whole(int(found * rest) >> FRACTION, counts) + coefficient
        powers.append(Whole(int(found) >> whole, counts))
    total = Whole(0, counts)
    for power in powers:
        total = total + power
    shares = []
    for power in powers:
        upper = Whole(int(power) << (bits + 1), counts) + total
        left, quotient = int(upper), 0
        for place in range(bits, -1, -1):  # restoring division: a subtraction for each bit
            tried = Whole(left, counts) - ((2 * int(total)) << place)
            quotient, left = (2 * quotient + 1, int(tried)) if int(tried) >= 0 else (2 * quotient, left)
        shares.append(quotient)
    given_levels = torch.tensor([int(one) for one in levels]).numpy()
    softmax = ops.fit("softmax", bits=bits)
    assert shares == ops.reference(softmax, given_levels[None])[0].tolist()
    steps = steps_of(softmax, row)
    assert not steps.row
    assert row * of(steps.each, "multiply") == counted(counts, "multiply")
    assert row * of(steps.each, "add") == counted(counts, "add")
    assert max(width for what, width in counts if what == "multiply") <= 32, "of operands"
    assert POWER < 32


@settings(max_examples=15)
@given(st.sampled_from(["lines", "polynomial", "table"]), st.integers(1, 20), st.integers(1, 4))
def test_functions_of_a_number_take_their_work(kind: str, pieces: int, degree: int) -> None:
    options: dict[str, Any] = {"degree": degree} if kind == "polynomial" else {"pieces": pieces}
    found = ops.fit("tanh", (-4, 4), kind=kind, **options)
    steps = steps_of(found)
    assert sum(steps.each.values()) == found.work
    assert not steps.row
    assert found.pieces is not None
    count = len(found.pieces.coefficients)
    assert (steps.read_bits > 0) == (count > 1)
    assert steps.table_bits <= 32 * (found.pieces.numbers + count) * (count > 1)


def test_values_and_rows_are_those_of_one_sample() -> None:
    net = Block().train()
    for given_inputs in ((3, 6), torch.randn(5, 3, 6)):
        found = {one.name: one for one in operations(net, given_inputs, {})}
        assert {name: (one.values, one.rows) for name, one in found.items()} == {
            "gelu": (60, 0), "layer_norm": (30, 3), "softmax": (12, 3),
        }  # fmt: skip
    assert net.training


def test_a_swap_has_a_price_and_what_is_exact_has_none() -> None:
    net, machine = Block(), machine_of("eyeriss")
    gelu = ops.fit("gelu", (-8, 8), degree=4, kind="polynomial")
    called = operations(net, (3, 6), {"gelu": gelu})
    found = price(layers(net, (3, 6)), machine, operations=called)
    by_name = {one.name: one for one in found.operations}
    # four additions of Horner's rule, one for the middle, four products
    assert by_name["gelu"].energy_pj == pytest.approx(60 * (5 * 0.9 + 4 * 3.7))
    assert by_name["gelu"].area_um2 == 5 * 4184 + 4 * 7700
    assert by_name["gelu"].steps == 9
    assert by_name["gelu"].cycles is None, "the machine says no lanes"
    assert not_priced(found.operations) == ("layer_norm (exact)", "softmax (exact)")
    assert found.joules == price(layers(net, (3, 6)), machine).joules, "sums are of what every network has"
    mine = machine_of({**machine.model_dump(mode="json"), "operation_lanes": {"value": 4, "source": "chip"}})
    lanes = price(layers(net, (3, 6)), mine, operations=called)
    assert {one.name: one.cycles for one in lanes.operations}["gelu"] == 60 * 9 / 4
    bare = price(layers(net, (3, 6)), machine_of("tpu-v1"), operations=called)
    assert all(one.energy_pj is None for one in bare.operations)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (ops.fit("gelu", (-8, 8), pieces=8), ops.fit("gelu", (-8, 8), pieces=64)),
        (ops.fit("exp", (-4, 0), degree=2), ops.fit("exp", (-4, 0), degree=5)),
        (ops.fit("gelu", (-8, 8), bits=6), ops.fit("gelu", (-8, 8), pieces=64)),
        (ops.fit("softmax", bits=4), ops.fit("softmax", bits=12)),
        (ops.fit("rms_norm", bits=8), ops.fit("layer_norm", bits=8)),
        (ops.fit("softmax", bits=8), ops.fit("softmax", error=1e-4)),
        (ops.fit("layer_norm", bits=8), ops.fit("layer_norm", bits=12)),
    ],
)
def test_less_costs_less(small: Approximation, large: Approximation) -> None:
    net = Block()
    found = []
    for one in (small, large):
        names = dict.fromkeys(("gelu", "layer_norm", "softmax"))
        place = one.operation if one.operation in names else "layer_norm" if "norm" in one.operation else "gelu"
        called = operations(net, (3, 6), {place: one})
        (priced,) = [p for p in price(layers(net, (3, 6)), machine_of("stc"), operations=called).operations if p.steps]
        found.append((priced.energy_pj or math.inf, priced.steps or math.inf, priced.area_um2 or math.inf))
    assert found[0][0] < found[1][0]
    assert found[0][1] < found[1][1] or small.kind != large.kind
    assert found[0][2] < found[1][2] or small.kind != large.kind


def test_widths_between_those_of_the_table() -> None:
    assert TABLE.units("multiply", "integer", 9) == TABLE.units("multiply", "integer", 32)
    assert TABLE.units("multiply", "integer", 33) == (), "no multiplier is made of others"
    assert len(TABLE.units("add", "integer", 40)) == 2, "adders are, by the carry"
    assert TABLE.units("multiply", "float", 16)
    assert TABLE.units("multiply", "float", 8) == (), "float8 has no figure"
    assert TABLE.read_pj(64, 8) == 10
    assert TABLE.read_pj(64, 9) == 20
    assert TABLE.read_pj(64, 1025) is None


def test_a_table_is_of_the_machines_process() -> None:
    values = machine_of("tpu-v1").model_dump(mode="json")
    with pytest.raises(RecipeError, match=r"horowitz-45nm is for 45 nm, and the machine has node_nm 28"):
        machine_of({**values, "arithmetic": "horowitz-45nm"})
    with pytest.raises(RecipeError, match=r"no table 'horowitz-45'.* did you mean 'horowitz-45nm'"):
        machine_of({**values, "arithmetic": "horowitz-45"})
    with pytest.raises(RecipeError, match="operation_lanes is a whole number from 1, got 0"):
        machine_of({**values, "operation_lanes": {"value": 0, "source": "tpu"}})


def test_cost_of_a_plan_says_it_also_of_a_network_that_was_swapped_before() -> None:
    net = Block()
    gelu = ops.fit("gelu", (-8, 8), pieces=16)
    plan = Plan({name: Dense(tensor) for name, tensor in net.state_dict().items()}, approximations={"gelu": gelu})
    for model in (net, Block()):
        if model is not net:
            swap(model, {"gelu": gelu})
        found = fb.cost(plan, model, (3, 6), machine="eyeriss")
        assert [(one.name, one.energy_pj is None) for one in found.operations] == [
            ("gelu", False), ("layer_norm", True), ("softmax", True),
        ]  # fmt: skip
