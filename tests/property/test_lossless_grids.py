"""Grids of 8 bits and more: every weight within half a step of its level, at any magnitude, so that bits help."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits import codec
from fewbits.assign import ecq
from fewbits.assign._grid import highest, step_size
from fewbits.plan import Plan

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def on_the_grid(weight: torch.Tensor, bits: int) -> Plan:
    weights, assigner = {"w": weight}, ecq(bits, lam=0.0)
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    return codec.decode(codec.encode(plan), like=weights)


@given(st.lists(numbers, min_size=1, max_size=12), st.integers(-45, 38), st.integers(8, 16))
def test_no_weight_is_cut_off(values: list[float], exponent: int, bits: int) -> None:
    largest = max(map(abs, values)) or 1.0
    weight = torch.tensor([[v / largest * 10.0**exponent for v in values]])
    entry = on_the_grid(weight, bits)["w"]
    step = Fraction(entry.step)
    for before, after in zip(weight[0].tolist(), entry.values()[0].tolist(), strict=True):
        # a multiple of the step is itself a float32 number: at most one more rounding, of a relative 2^-24
        rounding = abs(Fraction(before)) / 2**23 + Fraction(2) ** -149
        assert abs(Fraction(after) - Fraction(before)) <= step / 2 + rounding
    reach = float(weight.abs().max())
    assert not reach or Fraction(reach) / highest(bits) * 2 >= step or step == Fraction(2) ** -149


def test_one_large_weight_among_small_ones() -> None:
    torch.manual_seed(0)
    weight = torch.randn(100, 100).clamp(-3, 3) * 0.02
    weight[3, 4] = 1.0
    errors = []
    for bits in range(8, 17, 2):
        error = (on_the_grid(weight, bits)["w"].values() - weight).abs()
        assert error[3, 4] < 1e-6
        errors.append(float(error.max()))
    assert all(finer < 0.3 * coarser for coarser, finer in pairwise(errors))
    assert errors[-1] < 2e-5


@pytest.mark.parametrize("bits", [4, 7])
def test_few_bits_are_spent_on_most_weights(bits: int) -> None:
    weight = torch.ones(10_000)
    weight[:5] = 9.0
    assert step_size(weight, bits) == pytest.approx(1 / highest(bits))
    assert step_size(weight, 8) == pytest.approx(9 / highest(8))
    assert step_size(weight, 8, percentile=99.9) == pytest.approx(1 / highest(8)), "unless asked for"
