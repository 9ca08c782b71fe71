"""Gradient surgery, by hand and as a learning rule."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.errors import DataError, UnsupportedError
from fewbits.multitask import SegmentNet, TaskBatches, Tasks, branched_paths, pcgrad, train_tasks, without_conflicts
from fewbits.recipe.training import Training
from fewbits.task import Classification
from fewbits.train import pretrain
from tests.task_networks import NAMES, batches, loaders, net


def test_two_gradients_that_conflict_by_hand() -> None:
    """(1, 0) and (-1, 1): each loses what it has along the other."""
    one, two = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-1.0, 1.0]), "head": torch.tensor([5.0])}
    first, second = without_conflicts([one, two])
    torch.testing.assert_close(first, {"w": torch.tensor([0.5, 0.5])})
    torch.testing.assert_close(second, {"w": torch.tensor([0.0, 1.0]), "head": torch.tensor([5.0])})
    assert one["w"].tolist() == [1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_of_two_tasks_none_pulls_against_the_other(seed: int, size: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    given_two = [{"w": torch.randn(size, generator=draw), f"head{i}": torch.randn(2, generator=draw)} for i in range(2)]
    found = without_conflicts(given_two)
    product = float(given_two[0]["w"] @ given_two[1]["w"])
    for i, left in enumerate(found):
        assert torch.equal(left[f"head{i}"], given_two[i][f"head{i}"])
        assert float(left["w"] @ given_two[1 - i]["w"]) >= -1e-4
        if product >= 0:
            assert torch.equal(left["w"], given_two[i]["w"])
        else:  # the part along the other one is gone, and nothing else
            u = F.normalize(given_two[1 - i]["w"], dim=0)
            wanted = given_two[i]["w"] - (given_two[i]["w"] @ u) * u
            torch.testing.assert_close(left["w"], wanted, rtol=1e-3, atol=1e-4)


def two_tasks() -> SegmentNet:
    torch.manual_seed(0)
    heads = {name: nn.Linear(2, 2) for name in ("a", "b")}
    return SegmentNet(lambda layer: nn.Linear(3, 2), branched_paths(["a", "b"], 1, [0]), heads)


def step(made: SegmentNet, data: dict[str, list[tuple[Tensor, Tensor]]]) -> None:
    training = Training(epochs=1, optimizer="sgd", momentum=0, lr=0.1, schedule="constant", label_smoothing=0.1)
    penalty = lambda: 0.3 * made.segment(0, 0).weight.sum()  # type: ignore[operator, union-attr]  # noqa: E731
    train_tasks(made, data, training, seed=0, order="together", rule=pcgrad, penalty=penalty)


@pytest.mark.parametrize("conflicting", [True, False])
def test_a_step_on_two_tiny_tasks_by_hand(conflicting: bool) -> None:
    """One step of SGD: the shared weight gets both gradients without conflicts, each head its own, and the penalty
    stays as it is."""
    made, x = two_tasks(), torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    made.heads["b"].load_state_dict(made.heads["a"].state_dict())
    with torch.no_grad():
        made.segment(0, 0).weight.mul_(0.1)  # so that both classes are about as likely
        for p in (made.segment(0, 0).bias, *(head.bias for head in made.heads.values())):
            p.zero_()
    y = torch.tensor([0, 1, 1, 0])
    data = {"a": [(x, y)], "b": [(x + 0.1, 1 - y if conflicting else y)]}
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    shared = [made.segment(0, 0).weight, made.segment(0, 0).bias]
    rows, heads = [], {}
    for task, ((inputs, targets),) in data.items():
        loss = F.cross_entropy(made(inputs, task), targets, label_smoothing=0.1) / 2
        head = list(made.heads[task].parameters())
        found = torch.autograd.grad(loss, [*shared, *head])
        rows.append(torch.cat([g.flatten() for g in found[:2]]))
        heads[task] = found[2:]
    one, two = rows
    assert (float(one @ two) < 0) == conflicting
    if conflicting:
        one, two = one - (one @ two) / (two @ two) * two, two - (one @ two) / (one @ one) * one
    both = one + two
    step(made, data)
    segment = torch.cat([before["layers.0.0.weight"].flatten(), before["layers.0.0.bias"]])
    penalised = torch.cat([torch.full((6,), 0.3), torch.zeros(2)])
    now = torch.cat([made.segment(0, 0).weight.flatten(), made.segment(0, 0).bias])
    torch.testing.assert_close(now, segment - 0.1 * (both + penalised))
    for task in "ab":
        for name, gradient in zip(("weight", "bias"), heads[task], strict=True):
            torch.testing.assert_close(
                made.heads[task].get_parameter(name), before[f"heads.{task}.{name}"] - 0.1 * gradient
            )


def test_all_tasks_are_learnt_with_surgery_and_batches_are_of_all() -> None:
    made = net(norm="task")
    given_all = TaskBatches(loaders(batches=4), "together")
    assert len(given_all) == len(list(given_all)) == 4
    assert all(batch.inputs.args[1].tolist() == sorted([*range(3)] * 16) for batch in given_all)
    train_tasks(made, loaders(batches=4), Training(epochs=8, lr=2e-2), seed=5, order="together", rule=pcgrad)
    scores = Tasks({name: Classification() for name in NAMES}).by_task(made, batches(batches=4, seed=1))
    assert min(scores.values()) > 60, scores


def test_what_cannot_be_is_refused() -> None:
    x, y = loaders()["cars"][0]
    with pytest.raises(UnsupportedError, match="Sequential is none"):
        pretrain(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), [(x, y)], Training(epochs=1), seed=0, rule=pcgrad)
    with pytest.raises(DataError, match="cannot be joined"):
        list(TaskBatches({"cars": [(x, y)], "birds": [(x[:, :, :3], y)]}, "together"))
