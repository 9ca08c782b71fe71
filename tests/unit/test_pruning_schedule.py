"""A recipe's sparsity is reached whatever the schedule, or refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewbits import recipe as recipes
from fewbits.errors import RecipeError
from fewbits.pipeline import compress
from fewbits.train.recalibrate import match_variance

BASE = {
    "schema": 2,
    "assign": {"method": "none"},
    "train": {"epochs": 2, "lr": 1e-3, "settle": 0.3},
    "rounds": 7,
}


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 20, generator=g), torch.randint(3, (8,), generator=g)) for _ in range(5)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))


def test_a_schedule_that_ends_as_the_assignment_settles_is_exact() -> None:
    prune = {"sparsity": 0.9, "schedule": "linear", "end": 0.7}
    found = compress(network(), batches(), recipe=recipes.make(BASE | {"prune": prune}))
    assert sum(int((~e.kept).sum()) for e in found.plan.compressed.values()) == round(0.9 * 690)


def test_a_schedule_beyond_the_settling_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"prune.end is 0.8, but from 0.7"):
        recipes.make(BASE | {"prune": {"sparsity": 0.9, "schedule": "linear", "end": 0.8}})


def test_no_candidate_from_before_the_schedule_ended_is_kept() -> None:
    values = BASE | {
        "assign": {"method": "ecq"}, "max_drop": 0.0, "pilots": 0,
        "prune": {"sparsity": 0.9, "schedule": "linear", "end": 0.5},
    }  # fmt: skip
    scores = iter([100.0] * 2 + [0.0] * 50)
    found = compress(network(), batches(), evaluate=lambda model: next(scores), recipe=recipes.make(values))
    assert found.report.met is False
    assert found.report.zeros >= 0.89


def test_patterns_want_quotes_and_floors_are_not_negative() -> None:
    with pytest.raises(RecipeError, match="in quotes"):
        recipes.make(BASE | {"prune": {"method": "n:m", "pattern": 124}})
    with pytest.raises(RecipeError, match="negative"):
        recipes.make(BASE | {"prune": {"sparsity": 0.5, "min_kept": -3}})


@pytest.mark.parametrize("seed", range(8))
def test_a_layer_with_constant_outputs_is_not_blown_up(seed: int) -> None:
    torch.manual_seed(seed)
    dense = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 3))
    pruned = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 3))
    pruned.load_state_dict(dense.state_dict())
    with torch.no_grad():
        pruned[0].weight.zero_()
    match_variance(pruned, dense, torch.randn(64, 20))
    assert max(float(p.detach().abs().max()) for p in pruned.parameters()) < 100
