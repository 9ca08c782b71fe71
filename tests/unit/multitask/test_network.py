"""A network of segments: what a task computes with, what it changes, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError
from fewbits.multitask import SegmentNet, SharedHead, Tasks, train_tasks
from fewbits.recipe.training import Training
from fewbits.task import Classification
from tests.task_networks import CLASSES, NAMES, after, block, loaders, net, paths

X = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(7))
OPTIONS = [
    {"merge": merge, "norm": norm, "shared_head": shared}
    for merge in ("sum", "mean", "gated")
    for norm in ("shared", "task")
    for shared in (False, True)
]
SOME = [OPTIONS[0], OPTIONS[3], OPTIONS[10], OPTIONS[11]]
"""For what trains: every value of each option with one of another, at least."""
TRAINING = Training(epochs=1, lr=1e-2, weight_decay=1e-2)


def by_hand(made: SegmentNet, x: Tensor, task: str) -> Tensor:
    """The forward pass as a formula, with the segments' own forwards."""
    for layer in range(2):
        on = [module for module in range(4) if made.path(task)[layer, module]]
        given = torch.stack([made.segment(layer, module)(x) for module in on])
        shares = torch.ones(len(on))
        if made.merge == "mean":
            shares = shares / len(on)
        if made.merge == "gated":
            raw = made.gates[task][layer][on]
            shares = raw.exp() / raw.exp().sum()
        merged = torch.einsum("s,snchw->nchw", shares, given)
        x = made.after[layer](merged + x if layer == 1 else merged)
    if made.shared_head is not None:
        begin = CLASSES * NAMES.index(task)
        return made.shared_head.linear(x)[:, begin : begin + CLASSES]
    return made.heads[task](x)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_outputs_are_those_of_the_formula(options: dict[str, Any]) -> None:
    made = net(**options).eval()
    for gates in made.gates.values():
        nn.init.normal_(gates)
    for task in NAMES:
        found = made(X, task)
        torch.testing.assert_close(found, by_hand(made, X, task))
        assert torch.equal(found, made(X, NAMES.index(task)))
        assert torch.equal(found, made(X, torch.full((5,), NAMES.index(task))))


def test_a_batch_may_mix_tasks() -> None:
    made = net().eval()
    task = torch.tensor([2, 0, 2, 1, 0])
    found = made(X, task)
    for row in range(5):
        torch.testing.assert_close(found[row : row + 1], made(X[row : row + 1], int(task[row])))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(OPTIONS), st.sampled_from(NAMES))
def test_a_gradient_is_zero_outside_of_its_tasks_path(seed: int, options: dict[str, Any], task: str) -> None:
    made = net(paths(seed=seed), seed=seed, **options)
    made(X, task).square().sum().backward()
    own = {id(p) for p in made.parameters_of(task)}
    for name, parameter in made.named_parameters():
        grown = parameter.grad is not None and bool(parameter.grad.any())
        assert not grown or id(parameter) in own, name
        part = name.split(".")
        if part[0] == "layers":
            on = bool(made.path(task)[int(part[1]), int(part[2])])
            mine = part[-3] != "each" or part[-2] == task
            assert (id(parameter) in own) == (on and mine), name
            assert (parameter.grad is not None) == (on and mine), name
    if made.shared_head is not None:
        begin, rows = CLASSES * NAMES.index(task), made.shared_head.linear.weight.grad
        assert rows is not None
        assert not rows[:begin].any()
        assert not rows[begin + CLASSES :].any()
        assert rows.any()
    for name, gates in made.gates.items():
        if gates.grad is not None:
            assert name == task
            assert not gates.grad[~made.path(task)].any()


def test_segments_that_nobody_goes_through_are_not_made() -> None:
    made = net()
    users = paths().users()
    kept = {(layer, int(key)) for layer, segments in enumerate(made.layers) for key in segments}
    assert kept == set(users)
    assert len(kept) < 8


@pytest.mark.parametrize("options", SOME, ids=str)
def test_a_task_that_comes_later_changes_no_bit_of_the_others(options: dict[str, Any]) -> None:
    made = net(**options)
    train_tasks(made, loaders(), TRAINING, seed=0)
    made.eval()
    before = {task: made(X, task) for task in NAMES}
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    path = torch.zeros(2, 4, dtype=torch.bool)
    path[:, 1:] = True  # segments of others, and new ones
    made.add("planes", path, nn.Linear(16, 5))
    old = made.eval()(X, "planes").detach()
    made.train()
    train_tasks(made, loaders(("planes",)), TRAINING, seed=1)
    made.eval()
    for task in NAMES:
        assert torch.equal(made(X, task), before[task]), task
    for name, tensor in state.items():
        assert torch.equal(made.state_dict()[name], tensor), name
    assert not torch.equal(made(X, "planes"), old), "it learns"
    assert made.tasks == [*NAMES, "planes"]


def test_a_task_that_comes_later_may_change_the_others() -> None:
    made = net(norm="task").eval()
    before = made(X, "cars")
    made.add("planes", made.path("cars"), nn.Linear(16, CLASSES), freeze=False)
    assert torch.equal(made(X, "cars"), before)
    train_tasks(made, loaders(("planes",)), TRAINING, seed=1)
    assert not torch.equal(made.eval()(X, "cars"), before)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_task_alone_computes_the_same(options: dict[str, Any]) -> None:
    made = net(**options).eval()
    for task in NAMES:
        alone = made.alone(task)
        assert torch.equal(alone(X), made(X, task))
        assert alone.tasks == [task]
        assert set(alone.state_dict()) < set(made.state_dict())
        shared = sum(p.numel() for p in made.parameters_of(task))
        assert sum(p.numel() for p in alone.parameters()) == shared
    assert made.tasks == list(NAMES)


def test_an_old_task_and_a_late_one_alone() -> None:
    made = net(shared_head=True, norm="task").eval()
    made.add("planes", made.path("cars"), nn.Linear(16, CLASSES))
    for task in ("cars", "planes"):
        assert torch.equal(made.alone(task)(X), made(X, task))
    assert made.alone("planes").shared_head is None


def test_what_cannot_be_is_refused() -> None:
    made = net()
    for wrong, words in ((None, "which task"), (3, "0 to 2"), (torch.tensor([0, -1]), "0 to 2"), (0.5, "0 to 2")):
        with pytest.raises(DataError, match=words):
            made(X, wrong)
    with pytest.raises(RecipeError, match="no task 'car'; did you mean 'cars'"):
        made(X, "car")
    with pytest.raises(RecipeError, match="merge is one of"):
        net(merge="max")
    with pytest.raises(RecipeError, match="norm is one of"):
        net(norm="none")
    with pytest.raises(RecipeError, match="the heads of"):
        SegmentNet(block, paths(), {"cars": nn.Linear(16, 2)}, after=after)
    with pytest.raises(RecipeError, match="there twice"):
        made.add("cars", made.path("cars"), nn.Linear(16, 2))
    with pytest.raises(RecipeError, match="one class at least"):
        SharedHead(16, {"cars": 0})
    heads = {n: nn.Unflatten(1, (16 >> i, 1 << i)) for i, n in enumerate(NAMES)}
    uneven = SegmentNet(block, paths(), heads, after=after)
    with pytest.raises(DataError, match="outputs of different shapes"):
        uneven(X, torch.tensor([0, 0, 1, 1, 2]))
    with pytest.raises(RecipeError, match="no task 'plane'"):
        train_tasks(made, loaders(("plane",)), TRAINING, seed=0)
    with pytest.raises(RecipeError, match="optimizers is one of"):
        train_tasks(made, loaders(), TRAINING, seed=0, optimizers="two")
    assert Tasks({name: Classification() for name in NAMES}).scale.name == "percent"
