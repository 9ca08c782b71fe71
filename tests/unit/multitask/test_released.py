"""PaRT's released splits and paths: replayed, with the label maps that its code wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.errors import DataError, RecipeError
from fewbits.multitask import RELEASED, RELEASED_SEEDS, ClassMap, Paths, random_paths, released_paths

SPLITS = json.loads((Path(__file__).parents[3] / "benchmarks" / "part_splits.json").read_text())["settings"]
CASES = [(setting, number) for setting in SPLITS for number in range(5)]
MERGED = {"cifar100": [4, 7, 4, 3, 5], "cifar10+100": [8, 11, 10, 8, 8]}
"""Classes that the released code loses, counted by its authors' own files and rule."""
PRIVATE = {"cifar100": (7, 15), "cifar10+100": (22, 31), "5tasks": (11, 20)}
OVERLAP = {"cifar100": (6, 19), "cifar10+100": (4, 16), "5tasks": (0, 5)}


def in_place(labels: list[int]) -> Callable[[Tensor], Tensor]:
    """The released code's way: one label after the other, in the tensor that is being read."""

    def mapped(targets: Tensor) -> Tensor:
        targets = targets.clone()
        for new, old in enumerate(labels):
            targets[targets == old] = new
        return targets

    return mapped


def lost(labels: list[int], mapped: Callable[[Tensor], Tensor]) -> int:
    """How many classes are no longer there behind a map, 0 for a bijection."""
    return len(labels) - len(set(mapped(torch.tensor(labels)).tolist()))


@pytest.mark.parametrize(("setting", "number"), CASES)
def test_label_maps_are_bijections_on_the_released_splits(setting: str, number: int) -> None:
    tasks = SPLITS[setting]["splits"][number]["tasks"]
    assert len(tasks) == 10
    for task in tasks:
        found = ClassMap(task["labels"])
        assert lost(task["labels"], found) == 0
        given = torch.tensor(task["labels"])
        assert found(given).tolist() == list(range(len(given)))
        assert torch.equal(found.back(found(given.flip(0))), given.flip(0))


@pytest.mark.parametrize(("setting", "number"), CASES)
def test_the_released_map_is_none(setting: str, number: int) -> None:
    tasks = SPLITS[setting]["splits"][number]["tasks"]
    assert sum(lost(task["labels"], in_place(task["labels"])) for task in tasks) == MERGED[setting][number]


def test_a_map_looks_only_at_its_own_classes() -> None:
    found = ClassMap([7, 0, 3])
    assert found.has(torch.tensor([0, 1, 3, 7, 8, 100, -1])).tolist() == [True, False, True, True, False, False, False]
    assert found(torch.tensor([3, 7], dtype=torch.uint8)).tolist() == [2, 0]
    with pytest.raises(DataError, match="class 4 is none of the task's"):
        found(torch.tensor([3, 4]))
    for wrong in ([], [1, 1], [-1, 2]):
        with pytest.raises(RecipeError, match="each once"):
            ClassMap(wrong)


def drawn(tasks: int, layers: int, modules: int, per_layer: int, seed: int) -> np.ndarray:
    """What the released scripts draw, from NumPy's global generator, index by index."""
    np.random.seed(seed)
    found = np.zeros((tasks, layers, modules), bool)
    for task in range(tasks):
        for layer in range(layers):
            count = 0
            while count < per_layer:
                module = int(np.random.rand() * modules)
                if not found[task, layer, module]:
                    found[task, layer, module] = True
                    count += 1
    return found


def stacked(paths: Paths) -> np.ndarray:
    return np.stack([path.numpy() for path in paths.values()])


@pytest.mark.parametrize("seed", RELEASED_SEEDS)
@pytest.mark.parametrize("configuration", RELEASED)
def test_paths_are_those_of_the_released_seeds(configuration: str, seed: int) -> None:
    known = RELEASED[configuration]
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    found = stacked(released_paths(configuration, seed))
    assert (np.random.get_state()[1] == before).all(), "the global generator is left alone"  # type: ignore[index]
    assert (found == drawn(known.tasks, known.layers, known.modules, known.per_layer, seed)).all()
    assert (found.sum(2) == known.per_layer).all()


@pytest.mark.parametrize("configuration", RELEASED)
def test_released_paths_share_as_was_counted_before(configuration: str) -> None:
    for seed in RELEASED_SEEDS:
        paths = released_paths(configuration, seed)
        private = sum(len(names) == 1 for names in paths.users().values())
        assert PRIVATE[configuration][0] <= private <= PRIVATE[configuration][1]
        found = stacked(paths)
        overlap = [int((a & b).sum()) for i, a in enumerate(found) for b in found[:i]]
        assert OVERLAP[configuration][0] <= min(overlap) <= max(overlap) <= OVERLAP[configuration][1]


def test_released_paths_stay_what_they_are() -> None:
    digest = hashlib.sha256()
    for configuration in RELEASED:
        for seed in RELEASED_SEEDS:
            digest.update(np.packbits(stacked(released_paths(configuration, seed))).tobytes())
    assert digest.hexdigest()[:16] == "a2c379b1348c29f3"


def test_more_tasks_do_not_change_the_paths_of_those_before() -> None:
    few, many = (random_paths([f"t{i}" for i in range(n)], 3, 5, 2, seed=9) for n in (2, 6))
    assert all(torch.equal(few[name], many[name]) for name in few)
    for wrong in (0, 6):
        with pytest.raises(RecipeError, match="1 to 5 segments"):
            random_paths(["a"], 3, 5, wrong, seed=0)
    with pytest.raises(RecipeError, match="has 5 tasks, got 1"):
        released_paths("5tasks", 456, ["cars"])
    with pytest.raises(RecipeError, match="no configuration"):
        released_paths("cifar", 456)
