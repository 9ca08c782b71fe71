"""Paths by search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import NonFiniteError, RecipeError
from fewbits.multitask import SEARCHES, Paths, random_paths, search_paths
from fewbits.multitask._searching import changed

NAMES = ("a", "b", "c")


def planted(paths: Paths) -> float:
    """How much of a given network of paths was found."""
    wanted = random_paths(NAMES, 3, 5, 2, seed=99)
    return float(sum(int((paths[name] & wanted[name]).sum()) for name in NAMES))


@pytest.mark.parametrize("how", SEARCHES)
def test_the_best_of_what_was_tried_is_taken(how: str) -> None:
    found = search_paths(planted, NAMES, 3, 5, 2, tries=20, seed=3, how=how)
    assert len(found.scores) == len(found.tried) == 20
    assert found.scores == tuple(map(planted, found.tried))
    assert planted(found.best) == max(found.scores)
    again = search_paths(planted, NAMES, 3, 5, 2, tries=20, seed=3, how=how)
    assert again.scores == found.scores
    assert all((path.sum(1) == 2).all() for paths in found.tried for path in paths.values())


def test_evolution_climbs_where_chance_does_not() -> None:
    def mean(how: str) -> float:
        found = [search_paths(planted, NAMES, 3, 5, 2, tries=50, seed=seed, how=how) for seed in range(4)]
        return float(np.mean([planted(one.best) for one in found]))

    assert mean("evolution") > mean("random") + 1


def test_evolution_lets_the_oldest_go() -> None:
    """With a population of one, each is a change of the one before, whatever it scores."""
    found = search_paths(planted, NAMES, 3, 5, 2, tries=10, seed=0, population=1, sample=1)
    for before, after in zip(found.tried, found.tried[1:], strict=False):
        assert sum(int((before[name] != after[name]).sum()) for name in NAMES) == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.data())
def test_a_change_moves_one_task_in_one_layer(seed: int, modules: int, data: st.DataObject) -> None:
    per_layer = data.draw(st.integers(1, modules))
    paths = random_paths(NAMES, 2, modules, per_layer, seed=seed)
    found = changed(paths, np.random.default_rng(seed))
    rows = [(paths[name][layer], found[name][layer]) for name in NAMES for layer in range(2)]
    assert sum(not torch.equal(before, after) for before, after in rows) == (1 if per_layer < modules else 0)
    assert all((path.sum(1) == per_layer).all() for path in found.values())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match="how is one of"):
        search_paths(planted, NAMES, 3, 5, 2, tries=1, seed=0, how="evolve")
    with pytest.raises(RecipeError, match="1 try"):
        search_paths(planted, NAMES, 3, 5, 2, tries=0, seed=0)
    with pytest.raises(NonFiniteError, match="try 1"):
        search_paths(lambda paths: float("nan"), NAMES, 3, 5, 2, tries=1, seed=0)
