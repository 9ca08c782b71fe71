"""Jobs that ask in step get what they get alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.assign import Assigner, State, ecq, ecqx, ternary
from fewbits.assign import _batched as batched
from fewbits.assign._batched import Query, Values, run_alone, run_batched
from fewbits.assign._diagram import compared, count
from fewbits.plan import Plan
from states import assert_same

CPU = torch.device("cpu")


def collatz(start: int) -> Query[int]:
    """Asks until it is at 1: jobs of different starts ask differently often."""
    steps, at = 0, start
    while at != 1:
        at = at // 2 if at % 2 == 0 else 3 * at + 1
        answer = yield torch.tensor([at, steps])
        assert answer.tolist() == [at, steps]
        steps += 1
    return steps


@given(st.lists(st.integers(1, 60), max_size=6))
def test_in_step_as_alone(starts: list[int]) -> None:
    expected = [run_alone(collatz(start)) for start in starts]
    assert run_batched([collatz(start) for start in starts], [CPU] * len(starts)) == expected
    assert batched._answered([collatz(start) for start in starts]) == expected


def test_one_transfer_serves_all() -> None:
    fetched: list[int] = []
    real = batched._fetched

    def counted(asked: dict[int, Tensor]) -> dict[int, Values]:
        fetched.append(len(asked))
        return real(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched, "_fetched", counted)
        batched._answered([collatz(start) for start in (1, 2, 4, 8)])
    assert fetched == [3, 2, 1, 0]


def test_answers_are_exact() -> None:
    def asks(value: Tensor) -> Query[Values]:
        return (yield value)

    values = torch.tensor([1 / 3, 3e38, -1e-38]), torch.tensor(2**53), torch.tensor([True, False])
    for value, answer in zip(values, batched._answered([asks(v) for v in values]), strict=True):
        assert answer.dtype == np.float64
        assert answer.tolist() == value.reshape(-1).tolist()


def test_an_error_of_one_ends_all() -> None:
    ended: list[str] = []

    def asks(name: str) -> Query[None]:
        try:
            yield torch.zeros(1)
            if name == "b":
                raise ValueError(name)
            yield torch.zeros(1)
        finally:
            ended.append(name)

    with pytest.raises(ValueError, match="b"):
        batched._answered([asks(name) for name in "abc"])
    assert sorted(ended) == ["a", "b", "c"]


@given(st.lists(st.floats(-4, 4, width=32), max_size=30), st.lists(st.floats(-3, 3, width=32), max_size=20))
def test_counting_by_comparing_with_all_boundaries(weights: list[float], edges: list[float]) -> None:
    """What a GPU does."""
    x, bounds = torch.tensor(weights), np.array(sorted(edges), dtype=np.float32)
    assert run_alone(compared(x, bounds)).tolist() == count(x, bounds).tolist()


@pytest.mark.parametrize(
    "assigner",
    [
        ecq(4, 0.4), ecq(2, 0.1, step_rule="rate"), ecq(7, 0.4), ecq(4, 0.3, rate="coder"), ternary(0.2),
        ecqx(4, 0.4, step_rule="rate"), ecqx(4, 0.4, p=0.9, momentum=0.9), ecqx(4, 0.2, p_rule="released"),
        ecq(4, 9.0, step_rule="rate", min_kept=0.3), ecqx(4, 9.0, min_kept=0.3),
    ],
)  # fmt: skip
def test_a_whole_assignment_in_step(assigner: Assigner, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: counted by comparing, and all layers' questions joined."""
    generator = torch.Generator().manual_seed(0)
    weights = {str(n): torch.randn(n, 7, generator=generator) for n in (1, 20, 300)}
    scores = [{name: torch.randn(w.shape, generator=generator) for name, w in weights.items()} for _ in range(2)]

    def after_two() -> tuple[Plan, State]:
        _, state = assigner.update(weights, scores[0], assigner.init(weights))
        return assigner.update(weights, scores[1], state)

    plan, state = after_two()
    joined: list[int] = []

    def in_step(jobs: list[Query[Any]], devices: list[torch.device]) -> list[Any]:
        joined.append(len(jobs))
        return batched._answered(jobs)

    monkeypatch.setattr("fewbits.assign._entropy.run_batched", in_step)
    monkeypatch.setattr("fewbits.assign._rate.counting", lambda x, bounds, extremes: compared(x, bounds))
    found, later = after_two()
    assert joined == [3, 3]
    assert found.equals(plan)
    for name in weights:
        assert_same(state[name], later[name])
