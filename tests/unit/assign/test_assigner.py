from __future__ import annotations

import pytest
import torch

from fewbits.assign import ecq, only, ternary, with_codebooks, with_steps
from fewbits.errors import NonFiniteError, RecipeError, SelectionError

WEIGHTS = {
    "conv.weight": torch.randn(4, 2, 3, 3),
    "fc.weight": torch.randn(5, 6),
    "out.weight": torch.randn(2, 5),
}


def test_only_routes_by_name() -> None:
    assigner = only(["fc.*", "out.*"], ternary(), otherwise=ecq(3))
    plan, state = assigner.update(WEIGHTS, None, assigner.init(WEIGHTS))
    assert list(plan) == list(WEIGHTS) == sorted(state.layers)
    assert [entry.bits for entry in plan.clustered.values()] == [3, 2, 2]
    assert plan.clustered["conv.weight"].codebook is None


def test_only_without_otherwise_leaves_the_rest_out() -> None:
    assigner = only("fc.weight", ecq(3))
    plan, state = assigner.update(WEIGHTS, None, assigner.init(WEIGHTS))
    assert list(plan) == list(state.layers) == ["fc.weight"]


def test_only_nests() -> None:
    assigner = only("conv.*", ecq(5), otherwise=only("fc.*", ecq(3), otherwise=ecq(2)))
    plan, _ = assigner.update(WEIGHTS, None, assigner.init(WEIGHTS))
    assert [entry.bits for entry in plan.clustered.values()] == [5, 3, 2]


def test_a_pattern_that_matches_nothing() -> None:
    assigner = only(["conv.*", "fc.wieght"], ecq())
    with pytest.raises(SelectionError, match=r"'fc\.wieght' matches no weight; did you mean 'fc\.weight'"):
        assigner.init(WEIGHTS)


def test_with_steps_changes_the_grid_and_nothing_else() -> None:
    assigner = ecq(3, 0.0)
    state = assigner.init(WEIGHTS)
    changed = with_steps(state, {"fc.weight": 0.3})
    assert changed["fc.weight"].step == float(torch.tensor(0.3))
    assert changed["conv.weight"] is state["conv.weight"]
    assert state["fc.weight"].step != changed["fc.weight"].step
    plan, after = assigner.update(WEIGHTS, None, changed)
    assert plan.clustered["fc.weight"].step == after["fc.weight"].step == changed["fc.weight"].step


def test_with_codebooks() -> None:
    assigner = only("fc.*", ternary(0.0), otherwise=ecq())
    state = with_codebooks(assigner.init(WEIGHTS), {"fc.weight": (-0.25, 0.0, 0.75)})
    plan, _ = assigner.update(WEIGHTS, None, state)
    entry = plan.clustered["fc.weight"]
    assert entry.codebook == (-0.25, 0.0, 0.75)
    expected = (WEIGHTS["fc.weight"] > 0.375).int() - (WEIGHTS["fc.weight"] < -0.125).int()
    assert torch.equal(entry.levels.int(), expected)


def test_handing_back_impossible_values() -> None:
    assigner = only("fc.*", ternary(), otherwise=ecq())
    state = assigner.init(WEIGHTS)
    with pytest.raises(SelectionError, match=r"no layer 'fc\.weigh'; did you mean 'fc\.weight'"):
        with_steps(state, {"fc.weigh": 0.1})
    with pytest.raises(SelectionError, match="no step size"):
        with_steps(state, {"fc.weight": 0.1})
    with pytest.raises(SelectionError, match="no codebook"):
        with_codebooks(state, {"conv.weight": (-1.0, 0.0, 1.0)})
    for step in (0.0, -0.1, 1e-60):
        with pytest.raises(RecipeError, match=r"'conv\.weight' must be positive"):
            with_steps(state, {"conv.weight": step})
    for step in (float("nan"), float("inf"), 1e300):
        with pytest.raises(NonFiniteError, match=r"'conv\.weight'"):
            with_steps(state, {"conv.weight": step})
    for book in ((0.1, 0.0, 1.0), (0.0, 0.0, 1.0), (-1.0, 1e-9, 1.0), (0.0, 1.0, 2.0), (-2.0, -1.0, 0.0)):
        with pytest.raises(RecipeError, match=r"centroids of 'fc\.weight' must rise and keep zero"):
            with_codebooks(state, {"fc.weight": book})
    with pytest.raises(RecipeError, match=r"'fc\.weight' has 3 centroids, got 2"):
        with_codebooks(state, {"fc.weight": (-1.0, 1.0)})
    with pytest.raises(NonFiniteError):
        with_codebooks(state, {"fc.weight": (float("nan"), 0.0, 1.0)})
