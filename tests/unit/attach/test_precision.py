"""Numbers in fewer significant bits."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits import codec
from fewbits.attach import plan_of
from fewbits.attach.precision import DIGITS, held_by, rounded, shortened
from fewbits.plan import Dense, Plan

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def nearest(value: float, bits: int) -> float:
    """By trying: the number m 2^e with fewest distance, |m| < 2^bits or the power of two above, m even in a tie."""
    exact = Fraction(value)
    unit = Fraction(1)
    while abs(exact) >= unit * 2**bits:
        unit *= 2
    while abs(exact) and abs(exact) < unit * 2 ** (bits - 1):
        unit /= 2
    whole = exact // unit
    return float(min((whole, whole + 1), key=lambda m: (abs(m * unit - exact), m % 2)) * unit)


@given(finite, st.integers(2, 24))
def test_a_number_goes_to_the_nearest_of_so_many_bits(value: float, bits: int) -> None:
    expected = torch.tensor(nearest(value, bits), dtype=torch.float64).float()
    assert torch.equal(rounded(torch.tensor(value), bits), expected)


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float16, 11), (torch.bfloat16, 8), (torch.float8_e4m3fn, 4), (torch.float8_e5m2, 3)]
)
def test_these_are_the_numbers_of_shorter_floats(dtype: torch.dtype, bits: int) -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).abs().clamp(0.05, 400)
    assert torch.equal(rounded(values, bits), values.to(dtype).float())


@given(
    st.lists(finite | st.floats(-45, 38.5).map(lambda e: 10.0**e), min_size=1, max_size=8),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    st.none() | st.integers(2, 24),
)
def test_every_number_keeps_the_stated_precision(
    values: list[float], floats: torch.dtype, significand: int | None
) -> None:
    """From 1e-45 to 3e38: exactly, in rational numbers."""
    data = torch.tensor(values)
    bits = min(significand or 24, DIGITS[floats])
    found = shortened(data, floats, significand)
    for before, after in zip(data.tolist(), found.tolist(), strict=True):
        assert abs(Fraction(after) - Fraction(before)) <= abs(Fraction(before)) / 2**bits
    narrow = data.to(floats)
    if bits == DIGITS[floats] and held_by(data, floats):  # wider only where it must be
        assert found.dtype == floats
        assert torch.equal(found, narrow)
    assert torch.equal(shortened(found.float(), floats, significand), found), "twice is once"


@given(st.lists(finite, min_size=1, max_size=20), st.integers(2, 24))
def test_rounding_twice_changes_nothing(values: list[float], bits: int) -> None:
    once = rounded(torch.tensor(values), bits)
    kept = once[torch.isfinite(once)]
    assert torch.equal(rounded(kept, bits), kept)
    small = torch.tensor(values) / 4  # where none is taken beyond the type, there is something to compare
    once = rounded(small, bits)
    assert torch.isfinite(once).all()
    assert torch.equal(rounded(once, bits), once)


def test_a_tensor_beyond_the_type_stays_float32() -> None:
    data = torch.tensor([1e38, 1.1])
    found = shortened(data, torch.float16)
    assert found.dtype == torch.float32
    assert torch.equal(found, rounded(data, 11))


@pytest.mark.parametrize("number", [1e-45, 1e-38, 1e-8, 3e-5, 6.5e4, 1e6, 1e38])
@pytest.mark.parametrize(("floats", "bits"), [(torch.float16, 11), (torch.bfloat16, 8), (torch.float16, 5)])
def test_both_ends_of_the_range(floats: torch.dtype, bits: int, number: float) -> None:
    """An ordinary number beside one that float16 flushes, cuts or overflows: both come back from the file."""
    net = nn.BatchNorm1d(2)
    for tensor in (net.weight, net.bias, net.running_mean, net.running_var):
        tensor.data = torch.tensor([1.1, number])
    plan = codec.decode(codec.encode(plan_of(net, floats=floats, significand=bits)), like=net)
    for name, tensor in plan.tensors().items():
        assert ((tensor - net.state_dict()[name]).double().abs() <= 2.0**-bits * tensor.double()).all(), name


def test_eight_bits_stay_in_two_bytes() -> None:
    for number in (1e-30, 1e30):
        assert shortened(torch.tensor([1.1, number]), torch.float16, 8).dtype == torch.bfloat16
        assert shortened(torch.tensor([1.1, number]), torch.float16, 9).dtype == torch.float32


def test_a_number_that_rounding_takes_beyond_every_type_is_not_rounded() -> None:
    largest = torch.tensor([torch.finfo(torch.float32).max, 1.1])
    assert torch.equal(shortened(largest, torch.float16, 4), torch.tensor([largest[0], 1.125]))


def test_one_small_number_costs_few_bytes() -> None:
    data = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 0.1
    short = len(codec.encode(Plan({"t": Dense(data.half())})))
    data[7] = 1e-7
    found = shortened(data, torch.float16)
    assert found.dtype == torch.float32
    assert len(codec.encode(Plan({"t": Dense(found)}))) < 1.03 * short


def test_infinity_stays_and_nan_is_left_to_the_encoder() -> None:
    mask = torch.tensor([float("-inf"), 0.0])
    assert torch.equal(shortened(mask, torch.float16), mask.half())
    assert shortened(torch.tensor([float("nan"), 1.5]), torch.float16, 4).isnan().tolist() == [True, False]


@pytest.mark.parametrize("data", [torch.arange(1000), torch.tensor([0.1], dtype=torch.float64)])
def test_only_float32_is_touched(data: Tensor) -> None:
    assert shortened(data, torch.float16, 4) is data


def test_fewer_bits_take_fewer_bytes() -> None:
    torch.manual_seed(0)
    net = nn.Linear(1, 2000)
    sizes = [len(codec.encode(plan_of(net, floats=torch.float16, significand=bits))) for bits in (11, 8, 6, 4, 2)]
    assert sizes == sorted(sizes, reverse=True)
    whole = len(codec.encode(plan_of(net, floats=torch.float16)))
    assert sizes[0] == whole  # float16 has no more than 11
    assert sizes[3] < 0.6 * whole
