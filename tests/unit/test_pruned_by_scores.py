"""Recipes that prune by scores, end to end on a small network: measured, pruned, trained or not, written, decoded."""

from __future__ import annotations

import pytest
import torch

import fewbits as fb
from fewbits import codec
from fewbits.errors import RecipeError
from fewbits.pipeline.check import check
from fewbits.recipe import make
from fewbits.weights import select
from networks import small_network

SCORES = {"prune": {"method": "scores", "sparsity": 0.5}, "measure": {"name": "taylor"}, "assign": {"method": "none"}}
WANDA = {"prune": {"method": "wanda", "sparsity": 0.5}, "measure": {"name": "inputs"}, "assign": {"method": "none"}}
TRAIN = {"epochs": 1, "lr": 1e-3}


@pytest.mark.parametrize(
    "recipe",
    [
        SCORES | {"train": TRAIN},
        SCORES | {"train": None},
        SCORES | {"train": TRAIN, "prune": {"method": "scores", "sparsity": 0.5, "schedule": "cubic", "regrow": True}},
        SCORES | {"train": TRAIN, "measure": {"name": "fisher"}, "assign": {"method": "ecq", "lam": 0.0, "bits": 4}},
        SCORES | {"train": TRAIN, "measure": {"name": "relevance"}, "assign": {"method": "ecqx", "lam": 0.1}},
        WANDA | {"train": None},
        SCORES | {"train": TRAIN, "measure": {"name": "obs"}, "assign": {"method": "ecqx", "lam": 0.1}},
    ],
    ids=["taylor", "untrained", "rising", "fisher ecq", "relevance ecqx", "wanda", "obs ecqx"],
)
def test_half_of_the_weights_go_and_the_file_decodes(trained, train, recipe) -> None:
    small = fb.compress(trained, train, recipe=make(recipe))
    assert small.report.identical
    assert small.plan.equals(codec.decode(small.data, like=trained))
    weights = small.plan.compressed.values()
    zeros, total = (sum(int(f(e).sum()) for e in weights) for f in (lambda e: ~e.kept, lambda e: torch.ones(e.shape)))
    if recipe["assign"]["method"] == "none":
        assert zeros == round(total / 2)
    else:
        assert zeros >= round(total / 2)
    small.into(small_network())


def test_what_wanda_removes_without_training_is_small_within_each_output(trained, train) -> None:
    small = fb.compress(trained, train, recipe=make(WANDA | {"train": None, "floats": "float32"}))
    by_magnitude = fb.compress(
        trained, train, recipe=make({"prune": {"sparsity": 0.5}, "assign": {"method": "none"}, "train": None})
    )
    for name, weight in select(trained).items():
        kept = small.plan[name].kept
        left = kept.flatten(1).sum(1)
        assert left.max() - left.min() <= 1
        assert torch.equal(small.plan[name].values()[kept], weight.detach()[kept])
    assert any(not torch.equal(small.plan[n].kept, by_magnitude.plan[n].kept) for n in select(trained))


def test_wanda_with_other_scores_is_refused_with_a_way_out() -> None:
    for measure in ({}, {"measure": {"name": "taylor"}}):
        recipe = make({**WANDA, "measure": {}} | measure)
        with pytest.raises(RecipeError, match=r"'wanda' needs other scores than .* add measure: \{name: inputs\}, or"):
            check(recipe)
    check(make(WANDA))
    check(make(WANDA | {"prune": {"method": "scores", "sparsity": 0.5}}))
