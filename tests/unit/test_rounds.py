"""Which candidate of the rounds is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fewbits import recipe as recipes
from fewbits.pipeline._rounds import Rounds
from fewbits.pipeline.rate_control import Fixed
from fewbits.plan import Clustered, Plan

PLAN = Plan({"w": Clustered(torch.tensor([0, 1], dtype=torch.int16), 2, step=1.0)})


def kept(seen: list[tuple[int, float]], **budget: Any) -> tuple[int, float] | None:
    """Bytes and percent of the best of candidates, of a float network with 95 %."""
    candidates = SimpleNamespace(written=lambda plan: plan)
    rounds = Rounds(recipes.make(budget), candidates, Fixed(0.1), 95.0)  # type: ignore[arg-type]
    for done, (size, accuracy) in enumerate(seen):
        sizes = SimpleNamespace(base=PLAN, data=bytes(size), size=size)
        rounds._note(SimpleNamespace(lam=0.1, share=1.0), sizes, accuracy, done)  # type: ignore[arg-type]
    return None if rounds.best is None else (rounds.best.bytes, rounds.best.accuracy)


@pytest.mark.parametrize(
    ("seen", "best"),
    [
        ([(1001, 95.0)], None),  # too large
        ([(979, 95.0)], None),  # a file that wastes what its target allows is no candidate
        ([(980, 90.0)], (980, 90.0)),
        ([(990, 90.0), (985, 92.0), (995, 91.0)], (985, 92.0)),
        ([(990, 90.0), (985, 90.0)], (985, 90.0)),  # of equal ones the later
    ],
)
def test_of_a_target_the_most_accurate_that_is_as_large_as_it_allows(seen: list, best: Any) -> None:
    assert kept(seen, target=1000) == best


@pytest.mark.parametrize(
    ("seen", "best"),
    [
        ([(500, 93.9)], None),
        ([(500, 94.0), (400, 94.5), (300, 93.0)], (400, 94.5)),
        ([(400, 94.0), (400, 94.9)], (400, 94.0)),
    ],
)
def test_of_a_drop_the_smallest_that_keeps_it(seen: list, best: Any) -> None:
    assert kept(seen, max_drop=1.0) == best
