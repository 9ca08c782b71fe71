"""What tasks give to each other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from fewbits.errors import DataError, RecipeError
from fewbits.multitask import leave_one_out, sharing_predicts

GIVES = {("a", "b"): 3.0, ("b", "a"): -1.0, ("a", "c"): 0.5}
"""What the second task of a pair gains where the first one is there."""


def train(names: Sequence[str]) -> dict[str, float]:
    return {t: 50.0 + sum(GIVES.get((u, t), 0.0) for u in names if u != t) for t in names}


def test_what_a_task_gives_is_what_goes_with_it() -> None:
    found = leave_one_out(train, ["a", "b", "c"])
    for i, t in enumerate("abc"):
        for j, u in enumerate("abc"):
            assert float(found.matrix[i, j]) == pytest.approx(GIVES.get((u, t), 0.0))
    assert found.mean == pytest.approx(2.5 / 6)
    assert found.whole.tolist() == [49.0, 53.0, 50.5]
    assert found.without.isnan().diagonal().all()
    assert float(found.both_ways[0, 1]) == float(found.both_ways[1, 0]) == pytest.approx(1.0)


def test_a_test_of_it_by_permutations_can_be_made() -> None:
    names = list("abcde")
    shared = torch.randint(0, 4, (5, 5), generator=torch.Generator().manual_seed(0)).float()
    shared = shared + shared.T

    def trained(asked: Sequence[str]) -> dict[str, float]:
        return {t: float(sum(shared[names.index(t), names.index(u)] for u in asked if u != t)) for t in asked}

    told = sharing_predicts(shared, leave_one_out(trained, names).both_ways)
    assert told.correlation == pytest.approx(1.0)
    assert told.p < 0.05


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match="two at least"):
        leave_one_out(train, ["a"])
    with pytest.raises(DataError, match="no score of task 'b'"):
        leave_one_out(lambda names: {"a": 1.0}, ["a", "b"])


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(DataError, match="score of task 'b' is nan; trained were"):
        leave_one_out(lambda asked: {name: float("nan") if name == "b" else 1.0 for name in asked}, ["a", "b"])
    assert torch.equal(leave_one_out(lambda asked: dict.fromkeys(asked, 1.0), ["a", "b"]).matrix, torch.zeros(2, 2))
