"""Rounds, and lambda between two of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import RecipeError
from fewbits.pipeline import check
from fewbits.recipe import make
from fewbits.train.hold import Ramp, next_round

LAMBDAS = st.one_of(st.just(0.0), st.floats(1e-6, 1e3))


@given(LAMBDAS, LAMBDAS, st.integers(0, 50), st.integers(1, 9))
def test_a_ramp_is_monotone_between_its_ends(begin: float, end: float, since: int, length: int) -> None:
    ramp, until = Ramp(begin, since, end), since + length
    on_the_way = [ramp.at(done, until) for done in range(since, until + 3)]
    assert on_the_way[length:] == [end] * 3
    assert sorted(on_the_way, reverse=end < begin) == pytest.approx(on_the_way, rel=1e-12)
    if begin:
        assert on_the_way[0] == pytest.approx(begin)
    assert all(min(begin, end) <= lam <= max(begin, end) * (1 + 1e-9) for lam in on_the_way)


def test_equal_times_are_equal_factors() -> None:
    ramp = Ramp(0.01, 20, 1.0)
    assert [ramp.at(done, 40) for done in (20, 25, 30, 35)] == pytest.approx([0.01, 10**-1.5, 0.1, 10**-0.5])
    assert Ramp(0.0, 0, 1.0).at(5, 10) == pytest.approx(0.1)  # from 0 as from a hundredth
    assert Ramp(0.0, 0, 0.0).at(5, 10) == 0.0


@given(st.integers(1, 300), st.integers(1, 60))
def test_rounds_are_the_steps_at_which_their_count_rises(total: int, rounds: int) -> None:
    rises = [d for d in range(1, total + 1) if d * rounds // total > (d - 1) * rounds // total]
    for done in range(total):
        assert next_round(done, total, rounds) == min(d for d in rises if d > done)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"assign": {"method": "int8"}}, "int8 has none"),
        ({"assign": {"method": "none"}, "prune": {"sparsity": 0.5}}, "none has none"),
        ({"assign": {"lam": 0.1}}, "give a target"),
        ({"max_drop": 1.0, "pilots": 0}, "give a target"),
    ],
)
def test_a_gradual_lambda_needs_a_size_to_go_to(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        check(make(changes | {"train": {"gradual": True}}))
    assert make({"train": {"gradual": True}, "max_drop": 1.0}).train.gradual
