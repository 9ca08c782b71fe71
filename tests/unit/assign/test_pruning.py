"""Pruners: what they refuse, what may come back, patterns, schedules and chains."""

from __future__ import annotations

import pytest
import torch

from fewbits.assign import (
    Assigner,
    LayerState,
    Scores,
    State,
    Weights,
    chain,
    ecq,
    ecqx,
    feather,
    global_magnitude,
    lamp,
    n_of_m,
    random_pruning,
    rising,
    ternary,
    uniform,
)
from fewbits.assign.pruning import rounded
from fewbits.assign.selection import smallest
from fewbits.errors import NonFiniteError, RecipeError
from fewbits.plan import Clustered, Masked, Plan
from fewbits.recipe.notation import min_kept_of


def weights() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    return {"a": torch.randn(20, 30, generator=g), "b": torch.randn(4, 3, 3, 3, generator=g) * 0.1}


def pruned(assigner, w=None):
    w = weights() if w is None else w
    return assigner.update(w, None, assigner.init(w))


def test_plain_global_pruning_empties_a_layer_that_the_floor_and_lamp_keep() -> None:
    w = weights()
    w["b"] *= 0.001
    assert not pruned(global_magnitude(0.9), w)[0]["b"].kept.any()
    assert int(pruned(global_magnitude(0.9, 7), w)[0]["b"].kept.sum()) == 7
    assert int(pruned(global_magnitude(0.9, "1.1%"), w)[0]["b"].kept.sum()) == int(708 * 0.011) == 7
    assert pruned(lamp(0.99), w)[0]["b"].kept.any()


def test_an_impossible_floor_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(RecipeError, match=r"min_kept of 100 weights keeps 200 of the 708 .* at most 508 .*; 637 "):
        pruned(global_magnitude(0.9, 100))
    pruned(global_magnitude(508 / 708, 100))  # the last setting that is possible
    with pytest.raises(RecipeError, match=r"0\.9 of 10,000 numbers needs 9,000 zeros, but only 708"):
        pruned(global_magnitude(0.9, of=10_000))


def test_sparsity_counts_over_what_is_stated() -> None:
    plan, state = pruned(global_magnitude(0.5, of=1000))
    assert sum(int((~e.kept).sum()) for e in plan.values()) == 500
    assert state["a"].sparsity == pytest.approx(float((~plan["a"].kept).double().mean()))


@pytest.mark.parametrize("options", [{"sparsity": 1.1}, {"sparsity": -0.1}, {"of": 0}, {"straight_through": 2.0}])
def test_impossible_options(options) -> None:
    with pytest.raises(RecipeError):
        global_magnitude(**options)


@pytest.mark.parametrize("floor", ["abc", "5", "-1%", -3])
def test_what_is_no_floor(floor) -> None:
    with pytest.raises(RecipeError):
        pruned(global_magnitude(0.5, floor))


def test_floors() -> None:
    assert min_kept_of(12, 1000) == 12
    assert min_kept_of("0.02%", 2_261_824) == 452
    assert min_kept_of(" 5 % ", 100) == 5


@pytest.mark.parametrize("make", [global_magnitude, lamp, uniform, random_pruning])
def test_zeros_stay_zeros_unless_they_may_regrow(make) -> None:
    w = weights()
    fixed, free = make(0.6), make(0.6, regrow=True, straight_through=1.0)
    first, state = pruned(fixed, w)
    moved = {n: x + 2.0 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for n, x in w.items()}
    second, _ = fixed.update(moved, None, state)
    assert second.equals(first) is False
    for name in w:
        assert torch.equal(second[name].kept, first[name].kept), "the count is the same, so the mask is"
    sparser, after = make(0.8).update(moved, None, state)
    for name in w:
        assert not (sparser[name].kept & ~first[name].kept).any()
    assert sum(int((~e.kept).sum()) for e in sparser.values()) == round(0.8 * 708)
    back, _ = make(0.3).update(moved, None, after)
    assert sum(int((~e.kept).sum()) for e in back.values()) == round(0.8 * 708), "sparsity cannot fall again"

    _, state = free.update(w, None, free.init(w))
    assert state["a"].mask is None
    if make is not random_pruning:
        regrown, _ = free.update(moved, None, state)
        assert any((regrown[n].kept & ~first[n].kept).any() for n in w)


def test_a_zero_among_the_survivors_does_not_change_places_with_a_pruned_weight() -> None:
    w = {"a": torch.tensor([[0.0, 1.0, 2.0, 3.0]])}
    assigner = global_magnitude(0.25)
    _, state = assigner.update(w, None, assigner.init(w))
    plan, _ = assigner.update({"a": torch.tensor([[9.0, 0.0, 2.0, 3.0]])}, None, state)
    assert plan["a"].kept.tolist() == [[False, True, True, True]]


def test_equal_magnitudes_fall_in_order() -> None:
    w = {"a": torch.ones(2, 3), "b": -torch.ones(4)}
    plan, _ = pruned(global_magnitude(0.7), w)
    assert plan["a"].kept.flatten().tolist() == [False] * 6
    assert plan["b"].kept.tolist() == [False, True, True, True]


def test_random_depends_on_its_seed_alone() -> None:
    first = pruned(random_pruning(0.5, seed=1))[0]
    assert torch.equal(first["a"].kept, pruned(random_pruning(0.5, seed=1))[0]["a"].kept)
    assert not torch.equal(first["a"].kept, pruned(random_pruning(0.5, seed=2))[0]["a"].kept)


def test_patterns() -> None:
    w = {"a": torch.tensor([[1.0, -3.0, 2.0, 3.0, 5.0]]), "dw": torch.randn(6, 1, 3, 3)}
    plan, _ = pruned(n_of_m("2:4"), w)
    assert plan["a"].kept.tolist() == [[False, True, False, True, True]]
    assert plan["dw"].kept.all(), "one input: nothing to choose from"
    assert pruned(n_of_m("1:2"), {"a": torch.ones(1, 4)})[0]["a"].kept.tolist() == [[False, True, False, True]]
    # A pattern wider than a row is one group, and costs no memory for what is not there.
    for m in (6, 10**12):
        assert pruned(n_of_m(f"2:{m}"), w)[0]["a"].kept.tolist() == [[False, False, False, True, True]]
    for text in ("2", "4:2", "0:4", "a:b", "2:4:8"):
        with pytest.raises(RecipeError, match="N:M"):
            n_of_m(text)


def test_schedules() -> None:
    assert [rising("one-shot")(x) for x in (0.0, 0.5, 1.0)] == [1, 1, 1]
    linear, cubic = rising("linear", 0.2, 0.6), rising("cubic", 0.0, 0.5)
    assert [linear(x) for x in (0.1, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [cubic(x) for x in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0, 7 / 8, 1, 1])
    with pytest.raises(RecipeError, match="no schedule"):
        rising("square")
    with pytest.raises(RecipeError, match="begin < end"):
        rising("cubic", 0.5, 0.5)
    with pytest.raises(RecipeError, match="begin < end"):
        rising("one-shot", 7, -3)


@pytest.mark.parametrize("quantizer", [ecq(4, 0.0), ecq(4, 0.3, zero_floor=0.5), ecqx(4, 0.3, p=0.5), ternary(0.1)])
def test_a_chain_keeps_pruned_weights_in_the_zero_cluster(quantizer) -> None:
    w = weights()
    scores = {n: x.abs() for n, x in w.items()}
    both = chain(global_magnitude(0.7, 5), quantizer)
    state = both.init(w)
    for _ in range(3):
        plan, state = both.update(w, scores, state)
    alone = pruned(global_magnitude(0.7, 5), w)[0]
    for name, entry in plan.items():
        assert isinstance(entry, Clustered)
        assert not entry.levels[~alone[name].kept].any()
        assert entry.levels.any()
        assert state[name].sparsity == pytest.approx(float((entry.levels == 0).double().mean()))
        assert state[name].mask is not None


def test_a_chain_may_regrow() -> None:
    w = weights()
    free = chain(global_magnitude(0.7, regrow=True), ecq(4, 0.0))
    first, state = free.update(w, None, free.init(w))
    swapped = {n: torch.where(first[n].kept, x * 0.001, x) for n, x in w.items()}
    second, _ = free.update(swapped, None, state)
    assert (second["a"].kept & ~first["a"].kept).any()


def test_a_chain_of_the_wrong_kinds_is_refused() -> None:
    for wrong in (chain(ecq(), ecq()), chain(global_magnitude(), feather())):
        with pytest.raises(RecipeError, match="assigner of a chain"):
            pruned(wrong)
    with pytest.raises(RecipeError, match="feather shrinks"):
        pruned(chain(feather(0.5), ecq()))


def test_rounded_shares_add_up() -> None:
    assert rounded([1.2, 2.7, 0.1], [9, 9, 9], 4) == [1, 3, 0]
    assert rounded([5.0, 5.0], [3, 9], 10) == [3, 7]
    with pytest.raises(RecipeError, match="cannot be kept"):
        rounded([1.0], [1], 2)


def test_selection_refuses_what_is_impossible() -> None:
    with pytest.raises(RecipeError, match="5 elements cannot be chosen: between 0 and 4"):
        smallest([torch.ones(4)], 5)
    with pytest.raises(NonFiniteError, match="'x'"):
        smallest([torch.tensor([1.0, float("inf")])], 1, names=["x"])
    assert smallest([], 0) == []


def test_masked_entries_are_checked() -> None:
    with pytest.raises(RecipeError, match="shape"):
        Masked(torch.ones(3), torch.ones(2, dtype=torch.bool))
    with pytest.raises(RecipeError, match="bool"):
        Masked(torch.ones(3), torch.ones(3))


def test_a_quantizer_that_gives_pruned_weights_a_value_does_not_get_its_way() -> None:
    def ones(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        levels = {name: torch.ones(w.shape, dtype=torch.int16) for name, w in weights.items()}
        return Plan({name: Clustered(entry, 2, step=1.0) for name, entry in levels.items()}), state

    quantizer = Assigner(lambda weights: State({name: LayerState() for name in weights}), ones)
    both = chain(global_magnitude(0.5), quantizer)
    weights = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    plan, _ = both.update(weights, None, both.init(weights))
    assert plan.clustered["w"].levels.tolist() == [[0, 0], [1, 1]]
