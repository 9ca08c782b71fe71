"""Jobs that ask in step get what they get alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.assign import ecqx, together
from fewbits.assign.together import Asking, Values, alone

CPU = torch.device("cpu")


def collatz(start: int, log: list[Values]) -> Asking[int]:
    """Asks until it is at 1: jobs of different starts ask differently often."""
    steps, at = 0, start
    while at != 1:
        at = at // 2 if at % 2 == 0 else 3 * at + 1
        answer = yield torch.tensor([at, steps])
        log.append(answer)
        assert answer.tolist() == [at, steps]
        steps += 1
    return steps


@given(st.lists(st.integers(1, 60), max_size=6))
def test_in_step_as_alone(starts: list[int]) -> None:
    expected = [alone(collatz(start, [])) for start in starts]
    assert together.together([collatz(start, []) for start in starts], CPU) == expected
    assert together._answered([collatz(start, []) for start in starts]) == expected


def test_one_transfer_serves_all() -> None:
    fetched: list[int] = []
    real = together._fetched

    def counted(asked: dict[int, Tensor]) -> dict[int, Values]:
        fetched.append(len(asked))
        return real(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "_fetched", counted)
        together._answered([collatz(start, []) for start in (1, 2, 4, 8)])
    assert fetched == [3, 2, 1, 0]


def test_answers_are_exact() -> None:
    def asks(value: Tensor) -> Asking[Values]:
        return (yield value)

    values = torch.tensor([1 / 3, 3e38, -1e-38]), torch.tensor(2**53), torch.tensor([True, False])
    for value, answer in zip(values, together._answered([asks(v) for v in values]), strict=True):
        assert answer.dtype == np.float64
        assert answer.tolist() == value.reshape(-1).tolist()


def test_a_whole_assignment_in_step() -> None:
    """As on a GPU: all layers' questions joined."""
    generator = torch.Generator().manual_seed(0)
    weights = {str(n): torch.randn(n, 7, generator=generator) for n in (1, 20, 300)}
    scores = {name: torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    assigner = ecqx(4, 0.4, step="rate")
    plan, _ = assigner.update(weights, scores, assigner.init(weights))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewbits.assign.entropy.together", lambda jobs, device: together._answered(jobs))
        joined, _ = assigner.update(weights, scores, assigner.init(weights))
    assert joined.equals(plan)
