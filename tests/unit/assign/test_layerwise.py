"""Rates by layer: exact counts, patterns, schedules, recipes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewbits import recipe as recipes
from fewbits.assign import layerwise, rising
from fewbits.errors import RecipeError, SelectionError
from fewbits.pipeline import check, compress


def weights() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    return {"head.weight": torch.randn(20, 30, generator=g), "tail.weight": torch.randn(4, 3, 3, 3, generator=g)}


def test_each_layer_loses_its_smallest_weights_as_many_as_its_rate_says() -> None:
    w = weights()
    assigner = layerwise({"head.weight": 0.25, "*": 0.5})
    plan, state = assigner.update(w, None, assigner.init(w))
    for name, zeros in (("head.weight", 150), ("tail.weight", 54)):
        mask, magnitude = plan[name].kept, w[name].abs()
        assert int((~mask).sum()) == zeros
        assert magnitude[mask].min() > magnitude[~mask].max()
        assert state[name].sparsity == zeros / w[name].numel()


def test_any_number_of_zeros_comes_back_from_its_rate() -> None:
    w = {"a": torch.randn(97, generator=torch.Generator().manual_seed(0))}
    for zeros in range(98):
        assigner = layerwise({"a": 1 - (97 - zeros) / 97})
        plan, _ = assigner.update(w, None, assigner.init(w))
        assert int((~plan["a"].kept).sum()) == zeros


def test_zeros_stay_while_a_schedule_rises() -> None:
    w = weights()
    at = rising("linear", 0.0, 1.0)
    state = layerwise({"*": 0.8}, share=at(0.0)).init(w)
    half, state = layerwise({"*": 0.8}, share=at(0.5)).update(w, None, state)
    moved = {n: x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for n, x in w.items()}
    full, _ = layerwise({"*": 0.8}, share=at(1.0)).update(moved, None, state)
    for name in w:
        assert int((~half[name].kept).sum()) == round(0.4 * w[name].numel())
        assert int((~full[name].kept).sum()) == round(0.8 * w[name].numel())
        assert not (full[name].kept & ~half[name].kept).any()


def test_names_are_checked_from_both_sides() -> None:
    w = weights()
    for rates, told in (
        ({"haed.weight": 0.5, "*": 0}, r"'haed.weight' belongs to no weight; did you mean 'head.weight'"),
        ({"head.*": 0.5}, r"no rate for the weight 'tail.weight'; .* add '\*': 0"),
    ):
        with pytest.raises(SelectionError, match=told):
            layerwise(rates).update(w, None, layerwise(rates).init(w))
    with pytest.raises(RecipeError, match=r"rate of '\*' must lie in 0..1, got 1.5"):
        layerwise({"*": 1.5})


BASE = {"schema": 2, "assign": {"method": "none"}, "train": {"epochs": 1, "lr": 1e-3}, "rounds": 2}


def test_a_recipe_takes_rates() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
    g = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 20, generator=g), torch.randint(3, (8,), generator=g)) for _ in range(5)]
    prune = {"method": "layers", "rates": {"0.weight": 0.9, "2.*": 0.1}, "schedule": "cubic"}
    for assign in ("none", "ecq"):
        found = compress(network, batches, recipe=recipes.make(BASE | {"prune": prune, "assign": {"method": assign}}))
        zeros = {name: int((~entry.kept).sum()) for name, entry in found.plan.compressed.items()}
        if assign == "none":
            assert zeros == {"0.weight": 540, "2.weight": 9}
        else:
            assert zeros["0.weight"] >= 540
            assert zeros["2.weight"] >= 9


@pytest.mark.parametrize(
    ("prune", "told"),
    [
        ({"method": "layers"}, "takes rates"),
        ({"method": "layers", "rates": {}}, "takes rates"),
        ({"method": "lamp", "sparsity": 0.5, "rates": {"*": 0.5}}, "and no rates: leave it out"),
        ({"method": "layers", "rates": {"*": 0.5}, "sparsity": 0.5}, "and no sparsity: leave it out"),
        ({"method": "layers", "rates": {"*": 0.5}, "over": "parameters"}, "leave over out"),
        ({"method": "layers", "rates": {"*": 1.5}}, "is at most 1, got 1.5"),
        ({"method": "layers", "rates": {"*": 0.5}, "min_kept": 3}, "min_kept goes with"),
    ],
)
def test_recipes_that_are_refused(prune: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check(recipes.make(BASE | {"prune": prune}))
