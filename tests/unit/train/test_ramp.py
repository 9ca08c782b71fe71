"""Lambda between two rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.train.hold import Ramp

LAMBDAS = st.one_of(st.just(0.0), st.floats(1e-6, 1e3))


@given(LAMBDAS, LAMBDAS, st.floats(0, 0.9), st.floats(0.01, 0.1))
def test_a_ramp_is_monotone_between_its_ends(begin: float, end: float, since: float, length: float) -> None:
    ramp = Ramp(begin, since, end, since + length)
    on_the_way = [ramp.at(since + length * k / 8) for k in range(10)]
    assert on_the_way[8] == on_the_way[9] == end
    assert sorted(on_the_way, reverse=end < begin) == on_the_way
    if begin:
        assert on_the_way[0] == pytest.approx(begin)
    assert all(min(begin, end) <= lam <= max(begin, end) * (1 + 1e-9) for lam in on_the_way)


def test_equal_shares_are_equal_factors() -> None:
    ramp = Ramp(0.01, 0.2, 1.0, 0.4)
    assert [ramp.at(s) for s in (0.2, 0.25, 0.3, 0.35)] == pytest.approx([0.01, 10**-1.5, 0.1, 10**-0.5])
    assert Ramp(0.0, 0.0, 1.0, 1.0).at(0.5) == pytest.approx(0.1)  # from 0 as from a hundredth
    assert Ramp(0.0, 0.0, 0.0, 1.0).at(0.5) == 0.0
