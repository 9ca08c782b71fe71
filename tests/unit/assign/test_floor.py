"""No layer loses all of its weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.assign import chain, ecq, ecqx, global_magnitude
from fewbits.errors import RecipeError
from fewbits.plan import Clustered

HUGE = 1e5  # without a floor every weight is zero


def taken(weight: Tensor, lam: float, floor: float, step: str, scores: Tensor | None = None) -> Clustered:
    assigner = (ecq if scores is None else ecqx)(4, lam, zero_floor=0.5, step=step, floor=floor)
    state = assigner.init({"a": weight})
    return assigner.update({"a": weight}, None if scores is None else {"a": scores}, state)[0].clustered["a"]


weights = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200).map(torch.tensor)


@given(weights, st.sampled_from([0.0, 0.3, 2.0, HUGE]), st.floats(0, 1), st.sampled_from(["range", "rate"]))
def test_so_many_stay_and_they_are_the_largest(weight: Tensor, lam: float, floor: float, step: str) -> None:
    entry = taken(weight, lam, floor, step)
    kept, needed = entry.levels != 0, min(math.ceil(floor * len(weight) - 1e-9), int((weight != 0).sum()))
    assert int(kept.sum()) >= needed
    ranked = weight.abs().sort(descending=True).values
    if needed:
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
    floor = (int(kept.sum()) + 20) / 500
    entry = taken(weight, 1.0, floor, "rate", scores)
    assert (entry.levels != 0)[kept].all()
    assert (entry.levels != 0)[weight.abs().topk(int(kept.sum()) + 20).indices].all()


def test_pruned_weights_stay_zero() -> None:
    torch.manual_seed(0)
    weight = {"a": torch.randn(100), "b": torch.randn(100) * 10}
    assigner = chain(global_magnitude(0.5), ecq(4, HUGE, floor=0.4))
    plan, _ = assigner.update(weight, None, assigner.init(weight))
    mask = global_magnitude(0.5)
    pruned = mask.update(weight, None, mask.init(weight))[0]
    for name, entry in plan.clustered.items():
        assert not (entry.levels[~pruned.compressed[name].kept] != 0).any()
    assert int((plan.clustered["b"].levels != 0).sum()) >= 40


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_a_floor_that_is_no_share_is_refused(floor: float) -> None:
    with pytest.raises(RecipeError, match="floor is a share"):
        ecq(4, 0.1, floor=floor)
