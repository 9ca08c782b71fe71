"""No layer loses all of its weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.assign import chain, ecq, ecqx, global_magnitude, with_steps
from fewbits.errors import RecipeError
from fewbits.plan import Clustered

HUGE = 1e5  # without a min_kept every weight is zero


def taken(weight: Tensor, lam: float, min_kept: float, step: str, scores: Tensor | None = None) -> Clustered:
    assigner = (ecq if scores is None else ecqx)(4, lam, zero_floor=0.5, step_rule=step, min_kept=min_kept)
    state = assigner.init({"a": weight})
    return assigner.update({"a": weight}, None if scores is None else {"a": scores}, state)[0].clustered["a"]


weights = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200).map(torch.tensor)


@example(torch.tensor([0.75, 0.75, -0.75]), 2.0, 0.5, "range")
@given(weights, st.sampled_from([0.0, 0.3, 2.0, HUGE]), st.floats(0, 1), st.sampled_from(["range", "rate"]))
def test_so_many_stay_and_they_are_the_largest(weight: Tensor, lam: float, min_kept: float, step: str) -> None:
    entry = taken(weight, lam, min_kept, step)
    kept, needed = entry.levels != 0, min(math.ceil(min_kept * len(weight) - 1e-9), int((weight != 0).sum()))
    assert int(kept.sum()) >= needed
    ranked = weight.abs().sort(descending=True).values
    if int((taken(weight, lam, 0.0, step).levels != 0).sum()) < needed:  # else entropy chose which enough of them stay
        assert kept[weight.abs() >= ranked[needed - 1]].all()
    assert (entry.levels.sign() * weight.sign() >= 0).all()


@given(weights, st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from(["range", "rate"]))
def test_a_floor_that_holds_anyway_changes_nothing(weight: Tensor, lam: float, step: str) -> None:
    plain = taken(weight, lam, 0.0, step)
    share = int((plain.levels != 0).sum()) / len(weight)
    same = taken(weight, lam, share, step)
    assert torch.equal(plain.levels, same.levels)
    assert plain.step == same.step


@pytest.mark.parametrize("step", ["range", "rate"])
def test_what_is_kept_goes_to_its_nearest_cluster(step: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(2000) * 0.1
    entry = taken(weight, HUGE, 0.05, step)
    kept = entry.levels != 0
    assert int(kept.sum()) == 100
    assert entry.step is not None
    clusters = entry.step * torch.arange(-7, 8).double()
    clusters = clusters[clusters != 0]
    error = (weight[kept].double()[:, None] - clusters).abs().min(1).values
    assert torch.allclose((entry.values()[kept] - weight[kept]).abs().double(), error)
    assert (error < weight[kept].abs()).all(), "zero would be nearer"


def test_relevant_weights_stay_beside_the_largest() -> None:
    torch.manual_seed(0)
    weight, scores = torch.randn(500), torch.rand(500)
    without = taken(weight, 1.0, 0.0, "rate", scores)
    kept = without.levels != 0
    min_kept = (int(kept.sum()) + 20) / 500
    entry = taken(weight, 1.0, min_kept, "rate", scores)
    assert (entry.levels != 0)[kept].all()
    assert (entry.levels != 0)[weight.abs().topk(int(kept.sum()) + 20).indices].all()


def test_pruned_weights_stay_zero() -> None:
    torch.manual_seed(0)
    weight = {"a": torch.randn(100), "b": torch.randn(100) * 10}
    assigner = chain(global_magnitude(0.5), ecq(4, HUGE, min_kept=0.4))
    plan, _ = assigner.update(weight, None, assigner.init(weight))
    mask = global_magnitude(0.5)
    pruned = mask.update(weight, None, mask.init(weight))[0]
    for name, entry in plan.clustered.items():
        assert not (entry.levels[~pruned.compressed[name].kept] != 0).any()
    assert int((plan.clustered["b"].levels != 0).sum()) >= 40


def test_with_relevance_the_number_is_what_counts() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1000)
    scores = torch.where(weight.abs() > 2, 1e-6, 1.0) * torch.rand(1000)
    without = taken(weight, 1.0, 0.0, "rate", scores).levels
    enough, more = int((without != 0).sum()) / 1000, 0.6
    assert not (without != 0)[weight.abs().topk(20).indices].all()
    assert torch.equal(taken(weight, 1.0, enough, "rate", scores).levels, without)
    assert int((taken(weight, 1.0, more, "rate", scores).levels != 0).sum()) >= 600


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0, 3.0])
def test_whatever_training_makes_of_the_step_zero_is_not_nearer(gain: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(2000)
    assigner = ecq(4, HUGE, step_rule="rate", min_kept=0.05)
    plan, state = assigner.update({"a": weight}, None, assigner.init({"a": weight}))
    held = plan.clustered["a"].step
    assert held is not None
    again, _ = assigner.update({"a": weight}, None, with_steps(state, {"a": gain * held}))
    entry = again.clustered["a"]
    kept = entry.levels != 0
    assert int(kept.sum()) == 100
    assert ((entry.values() - weight)[kept].abs() <= weight[kept].abs() * (1 + 1e-6)).all()


def test_where_the_grid_stays_so_do_the_clusters_that_entropy_chose() -> None:
    torch.manual_seed(0)
    weight = torch.randn(2000)
    plain = taken(weight, 0.8, 0.0, "range").levels
    more = int((plain != 0).sum()) + 50
    entry = taken(weight, 0.8, more / 2000, "range").levels
    assert torch.equal(entry[plain != 0], plain[plain != 0])
    assert int((entry != 0).sum()) == more


def test_a_floor_may_be_percent() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1000)
    assigner = ecq(4, HUGE, min_kept="2.5 %")
    plan, _ = assigner.update({"a": weight}, None, assigner.init({"a": weight}))
    assert int((plan.clustered["a"].levels != 0).sum()) == 25


@pytest.mark.parametrize("min_kept", [-0.1, 1.1, float("nan"), "2", "101%", True, None])
def test_a_floor_that_is_no_share_is_refused(min_kept: Any) -> None:
    with pytest.raises(RecipeError, match="min_kept is a share"):
        ecq(4, 0.1, min_kept=min_kept)
