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
from fewbits.attach.precision import rounded, shortened

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
    found = shortened(data, torch.float16, 4)
    assert found.dtype == torch.float32
    assert torch.equal(found, rounded(data, 4))
    assert shortened(data, torch.float16) is data


def test_a_tensor_that_rounding_takes_beyond_the_type_is_not_rounded() -> None:
    data = torch.tensor([64000.0, 1.1])  # with 4 bits 65536, which float16 has not
    assert torch.equal(shortened(data, torch.float16, 4), data.half())
    largest = torch.tensor([torch.finfo(torch.float32).max, 1.1])
    assert shortened(largest, torch.float16, 4) is largest


def test_what_is_not_finite_is_left_to_the_encoder() -> None:
    data = torch.tensor([float("inf"), 1.1])
    assert shortened(data, torch.float16, 4) is data


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
