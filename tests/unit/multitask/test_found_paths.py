"""Paths by affinity of tasks, and paths that are learnt."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.errors import BudgetError, RecipeError
from fewbits.multitask import PathChoice, Paths, affinity_paths, branched_paths, gradient_agreement, learn_paths
from fewbits.recipe.training import Training
from tests.task_networks import CLASSES, NAMES, after, block, loaders, net


def together(paths: Paths, agreement: Tensor) -> float:
    found = np.stack([path.numpy() for path in paths.values()])
    pairs = combinations(range(len(found)), 2)
    return sum(float(agreement[a, b]) * int((found[a] & found[b]).sum()) for a, b in pairs)


def test_the_best_way_to_share_is_found_on_small_cases() -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(5):
        agreement = torch.rand(6, 6, generator=draw)
        agreement = agreement + agreement.T
        found = affinity_paths(agreement, list("abcdef"), modules=3, per_layer=1)
        best = 0.0
        for places in product(range(3), repeat=6):
            if all(places.count(module) == 2 for module in range(3)):
                pairs = [(a, b) for a, b in combinations(range(6), 2) if places[a] == places[b]]
                best = max(best, sum(float(agreement[a, b]) for a, b in pairs))
        assert together(found, agreement) == pytest.approx(best)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.data())
def test_affinity_paths_are_full_and_even(tasks: int, modules: int, data: st.DataObject) -> None:
    per_layer = data.draw(st.integers(1, modules))
    agreement = torch.randn(2, tasks, tasks, generator=torch.Generator().manual_seed(tasks))
    paths = affinity_paths(agreement, [f"t{i}" for i in range(tasks)], modules, per_layer)
    found = torch.stack(list(paths.values()))
    assert (found.sum(2) == per_layer).all()
    loads = found.sum(0)
    assert int(loads.max() - loads.min()) <= 1


def test_agreement_of_equal_and_opposite_tasks() -> None:
    """Two tasks on the same data agree wholly, and one of noise with neither."""
    data = loaders(("cars",), batches=4)["cars"]
    noise = [
        (x, torch.randint(CLASSES, y.shape, generator=torch.Generator().manual_seed(i)))
        for i, (x, y) in enumerate(data)
    ]
    made = net(branched_paths(NAMES, 2, shared=range(2)))
    made.heads["birds"].load_state_dict(made.heads["cars"].state_dict())
    found = gradient_agreement(
        made, {"cars": data, "birds": data, "flowers": noise}, Training(epochs=1, lr=1e-3), seed=0, rounds=2, batches=2
    )
    assert found.shape == (2, 3, 3)
    torch.testing.assert_close(found, found.mT)
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), torch.ones(2, 3))
    assert (found[:, 0, 1] > 0.9).all()
    assert (found[:, 0, 1] > found[:, 0, 2]).all()
    assert together(affinity_paths(found, NAMES, 2, 1), torch.eye(3)) == 0
    paths = affinity_paths(found, NAMES, 2, 1)
    assert torch.equal(paths["cars"], paths["birds"])
    with pytest.raises(RecipeError, match="share"):
        gradient_agreement(net(), loaders(), Training(epochs=1), seed=0)
    with pytest.raises(RecipeError, match="1 to 2 segments"):
        affinity_paths(found, NAMES, 2, 3)
    with pytest.raises(RecipeError, match="there are 2"):
        affinity_paths(found, NAMES[:2], 2, 1)


class Dead(nn.Module):
    """A segment that gives nothing, whatever it is trained to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, *x.shape[2:]) + 0 * self.weight.sum()


def choosing(alive: set[tuple[int, int]] | None, modules: int = 4) -> PathChoice:
    torch.manual_seed(0)
    made = iter((layer, module) for layer in range(2) for module in range(modules))

    def segment(layer: int) -> nn.Module:
        return block(layer) if alive is None or next(made) in alive else Dead()

    return PathChoice(segment, NAMES, 2, modules, 1, {n: nn.Linear(16, CLASSES) for n in NAMES}, after=after)


@pytest.mark.long
def test_tasks_choose_the_segments_that_help() -> None:
    alive = {(1, 2), *((0, module) for module in range(4))}
    paths = learn_paths(choosing(alive), loaders(batches=6), Training(epochs=12, lr=2e-2, schedule="constant"), seed=0)
    assert {place for place in paths.users() if place[0] == 1} == {(1, 2)}


def test_a_budget_is_kept_and_asked_for_while_training() -> None:
    made = choosing(None)
    sizes = made.sizes()
    budget = int(sizes[0, 0] + 2 * sizes[1, 0])
    before = float(made.expected().detach())
    paths = learn_paths(made, loaders(), Training(epochs=4, lr=2e-2), seed=0, budget=budget, strength=10)
    assert sum(float(sizes[place]) for place in paths.users()) <= budget
    assert float(made.expected().detach()) < before
    with pytest.raises(BudgetError, match="give more"):
        made.chosen(int(sizes[0, 0]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8))
def test_within_a_budget_choices_stay_where_they_can(seed: int, segments: int) -> None:
    made = choosing(None)
    draw = torch.Generator().manual_seed(seed)
    for choice in made.choices.values():
        choice.data = torch.randn(choice.shape, generator=draw)
    free, sizes = made.chosen(), made.sizes()
    budget = int(segments * sizes.max())
    paths = made.chosen(budget)
    used = sum(float(sizes[place]) for place in paths.users())
    assert used <= budget
    if sum(float(sizes[place]) for place in free.users()) <= budget:
        assert all(torch.equal(paths[name], free[name]) for name in NAMES)
    for name in NAMES:  # a task is where it would rather be, among the segments that are left
        for layer in range(2):
            left = [module for module in range(4) if (layer, module) in paths.users()]
            (taken,) = paths[name][layer].nonzero().flatten().tolist()
            assert max(left, key=lambda module: float(made.choices[name].detach()[layer, module])) == taken


def test_in_evaluation_the_choice_is_taken_and_nothing_else() -> None:
    made = choosing(None).eval()
    for choice in made.choices.values():
        nn.init.normal_(choice)
    x, paths = torch.randn(3, 1, 6, 6), made.chosen()
    for name in NAMES:
        y = x
        for layer in range(2):
            (module,) = paths[name][layer].nonzero().flatten().tolist()
            y = made.after[layer](made.segment(layer, module)(y))
        torch.testing.assert_close(made(x, name), made.heads[name](y))
