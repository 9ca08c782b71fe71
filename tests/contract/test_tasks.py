"""What every task promises, whatever its outputs are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import DataError, RecipeError
from fewbits.measure.relevance import relevance
from fewbits.task import TASKS, Batch, Task, task_of

torch.manual_seed(0)
N = 24


@dataclass(frozen=True)
class Case:
    """A task, a network for it, and how its targets are drawn."""

    task: Callable[[], Task]
    net: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    targets: Callable[[], Tensor]


class Words(nn.Module):
    """A score for each of 7 tokens at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 8), nn.Linear(8, 7)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.table(ids)))


def pictures() -> Tensor:
    return torch.randn(N, 3, 6, 6)


def places(top: int) -> Tensor:
    targets = torch.randint(top, (N, 6, 6))
    targets[:, 0, :2] = -100
    return targets


def flat(outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 9), nn.ReLU(), nn.Linear(9, outputs))


def dense(outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, outputs, 1))


def named(name: str, **options: Any) -> Callable[[], Task]:
    return lambda: task_of(name, options)


def halved() -> Task:
    """With a loss of one's own, half of the squared error."""
    return Task(
        loss=lambda outputs, targets: (outputs - targets).square().mean() / 2,
        metric=lambda outputs, targets: (outputs - targets).abs().mean(),
        scale="loss",
    )


CASES = {
    "classification": Case(named("classification"), flat(4), pictures, lambda: torch.randint(4, (N,))),
    "binary": Case(named("binary"), flat(1), pictures, lambda: torch.randint(2, (N,))),
    "binary, a column": Case(named("binary"), flat(1), pictures, lambda: torch.randint(2, (N, 1)).float()),
    "multi-label": Case(named("multi-label"), flat(5), pictures, lambda: torch.randint(2, (N, 5)).bool()),
    "soft-labels": Case(named("soft-labels"), flat(4), pictures, lambda: torch.rand(N, 4).softmax(1)),
    "regression": Case(named("regression"), flat(2), pictures, lambda: torch.randn(N, 2)),
    "regression, one": Case(named("regression"), flat(1), pictures, lambda: torch.randn(N)),
    "segmentation": Case(named("segmentation"), dense(3), pictures, lambda: places(3)),
    "tokens": Case(named("tokens"), Words, lambda: torch.randint(7, (N, 5)), lambda: torch.randint(7, (N, 5))),
    "tokens, shifted": Case(
        named("tokens", shift=True), Words, lambda: torch.randint(7, (N, 5)), lambda: torch.randint(7, (N, 5))
    ),
    "own": Case(halved, flat(2), pictures, lambda: torch.randn(N, 2)),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def drawn(case: Case) -> tuple[Task, nn.Module, Batch]:
    torch.manual_seed(1)
    return case.task(), case.net().eval(), Batch(case.inputs(), case.targets())


def batches(batch: Batch, size: int = 8) -> list[Batch]:
    return [Batch(*parts) for parts in zip(*(part.split(size) for part in batch), strict=True)]


def test_every_name_has_a_case() -> None:
    assert {name.partition(",")[0] for name in CASES} == {*TASKS, "own"}


def test_the_loss_is_a_number_that_training_lowers(case: Case) -> None:
    task, net, batch = drawn(case)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        outputs = task.forward(net, batch)
        task.check(outputs, batch)
        loss = task.loss(outputs, batch)
        assert loss.shape == ()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_the_order_of_samples_changes_neither_loss_nor_metric(case: Case) -> None:
    task, net, batch = drawn(case)
    order = torch.randperm(N)
    other = Batch(batch.inputs[order], batch.targets[order])
    losses = [float(task.loss(task.forward(net, b), b)) for b in (batch, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert task.evaluate(net, [batch]) == pytest.approx(task.evaluate(net, [other]), rel=1e-6)


def test_how_samples_are_dealt_into_batches_does_not_change_the_metric(case: Case) -> None:
    task, net, batch = drawn(case)
    whole = task.evaluate(net, [batch])
    assert task.evaluate(net, batches(batch, 7)) == pytest.approx(whole, rel=1e-5)


def test_evaluation_leaves_the_network_in_its_mode(case: Case) -> None:
    task, net, batch = drawn(case)
    for mode in (True, False):
        net.train(mode)
        task.evaluate(net, [batch])
        assert net.training is mode
    with pytest.raises(DataError, match="empty"):
        task.evaluate(net, [])


def test_imitating_oneself_costs_nothing_and_others_something(case: Case) -> None:
    task, net, batch = drawn(case)
    outputs = task.forward(net, batch).detach()
    for temperature in (1.0, 4.0):
        assert float(task.imitation(outputs, outputs, temperature)) == pytest.approx(0.0, abs=1e-5)
        assert float(task.imitation(outputs, outputs + torch.randn_like(outputs), temperature)) > 1e-4
    with pytest.raises(DataError, match="teacher"):
        task.imitation(outputs, outputs[..., :1].repeat_interleave(outputs.shape[-1] + 1, -1), 1.0)


@pytest.mark.parametrize("start", ["score", "ones"])
def test_relevance_begins_with_the_shape_of_the_outputs(case: Case, start: str) -> None:
    task, net, batch = drawn(case)
    outputs = task.forward(net, batch).detach()
    found = task.relevance_start(outputs, batch, start)
    assert found.shape == outputs.shape
    assert found.isfinite().all()
    assert found.any()


def test_relevance_of_weights_goes_through(case: Case) -> None:
    task, net, batch = drawn(case)
    found = relevance(net, batches(batch), task=task)
    assert found.samples == N
    assert all(bool(scores.any()) for scores in found.weights.values())


def test_targets_of_another_shape_are_refused_with_both_shapes(case: Case) -> None:
    task, net, batch = drawn(case)
    outputs = task.forward(net, batch)
    if task.name == "own":
        return  # only its loss knows
    with pytest.raises(DataError, match="shape"):
        task.check(outputs, Batch(batch.inputs, batch.targets[:-1]))


@pytest.mark.parametrize("missing", [None, ["a", "b"], [{"box": torch.zeros(4)}]])
def test_a_batch_without_targets_is_told_so(case: Case, missing: Any) -> None:
    task, net, batch = drawn(case)
    if task.name == "own":
        return  # only its loss knows
    data = batch.inputs if missing is None else (batch.inputs, missing)
    with pytest.raises(DataError, match=r"batch 1 of the training data: a batch has .*targets"):
        fb.compress(net, [data], task=task, recipe={"assign": {"method": "ecq", "lam": 0.1}})


def test_it_is_compressed_and_decodes_to_the_same_outputs(case: Case) -> None:
    task, net, batch = drawn(case)
    recipe = {"assign": {"method": "ecq", "bits": 4, "lam": 0.05}, "train": {"epochs": 1, "distill": 0.5}, "rounds": 2}
    done = fb.compress(net, batches(batch), evaluate=batches(batch), task=task, recipe=recipe)
    assert done.report.identical
    assert done.report.metric == task.scale.name
    assert done.report.accuracy_before == pytest.approx(task.evaluate(net, batches(batch)), rel=1e-5)
    assert str(done.report)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("segmentatoin", {}, "segmentation"),
        ("segmentation", {"ignore_indx": 1}, "ignore_index"),
        ("regression", {"x": 1}, "none"),
        ("segmentation", {"ignore_index": True}, "whole number"),
        ("tokens", {"shift": "yes"}, "true or false"),
    ],
)
def test_what_no_task_has_is_refused_by_name(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        task_of(name, options)


class Named(nn.Module):
    """Outputs by name, and a sum of them in front."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(108, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.head(torch.relu(self.body(x.flatten(1))))
        return {"total": scores.sum(1), "logits": scores}


@pytest.mark.parametrize("samples", [None, 3])
def test_relevance_of_outputs_by_name(samples: int | None) -> None:
    torch.manual_seed(1)
    batch = Batch(pictures(), torch.randint(4, (N,)))
    recipe = {"assign": {"method": "ecqx", "lam": 0.05}, "train": {"epochs": 1}, "measure": {"samples": samples}}
    assert fb.compress(Named(), batches(batch), evaluate=batches(batch), recipe=recipe).report.identical
