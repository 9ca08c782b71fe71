"""Training on many tasks: turns, optimizers, a task of tasks, and the pipeline behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

import fewbits as fb
from fewbits.errors import DataError, RecipeError
from fewbits.multitask import ORDERS, SegmentNet, TaskBatches, Tasks, all_batches, pcgrad, train_tasks, with_task
from fewbits.recipe.training import Training
from fewbits.task import Batch, Classification, Inputs, Task, task_of
from fewbits.train import KeptTraining, Rule, Store
from tests.task_networks import CLASSES, NAMES, after, batches, block, loaders, net, paths

TRAINING = Training(epochs=3, lr=2e-2)


def uneven() -> dict[str, Any]:
    found = loaders(batches=5)
    return {"cars": found["cars"], "birds": found["birds"][:2], "flowers": found["flowers"][:1]}


def numbers(found: list[Batch]) -> list[int]:
    return [int(batch.inputs.args[1][0]) for batch in found]


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "together"])
def test_an_epoch_has_the_batches_that_its_order_says(order: str) -> None:
    given = TaskBatches(uneven(), order, each=2, seed=3)
    found = numbers(list(given))
    assert len(found) == len(given)
    counts = [found.count(number) for number in range(3)]
    assert counts == ([5, 5, 5] if order == "equal" else [5, 2, 1])
    assert found == numbers(list(given))
    later = []
    for epoch in (1, 2, 3):
        given.set_epoch(epoch)
        later.append(numbers(list(given)))
    assert any(found != other for other in later)
    for batch in given:
        (number,) = batch.inputs.args[1].unique().tolist()
        name = NAMES[number]
        assert any(torch.equal(batch.inputs.args[0], x) and torch.equal(batch.targets, y) for x, y in uneven()[name])


def test_turns_of_the_released_order_are_blocks_of_each_task() -> None:
    found = TaskBatches(loaders(batches=4), each=2, seed=0).turns()
    blocks = [found[i : i + 2] for i in range(0, 12, 2)]
    assert all(len(set(block)) == 1 for block in blocks)
    for turn in (blocks[:3], blocks[3:]):
        assert sorted(block[0] for block in turn) == [0, 1, 2]


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(RecipeError, match="order is one of"):
        TaskBatches(loaders(), "robin")
    with pytest.raises(RecipeError, match="each"):
        TaskBatches(loaders(), each=0)
    with pytest.raises(DataError, match="read only once"):
        TaskBatches({"cars": iter([])})
    with pytest.raises(DataError, match="empty"):
        TaskBatches({"cars": []})


def tasks() -> Tasks:
    return Tasks({name: Classification() for name in NAMES})


@pytest.mark.parametrize("optimizers", ["one", "per-task"])
def test_training_learns_all_tasks_and_repeats_itself(optimizers: str) -> None:
    found = []
    for _ in range(2):
        made = net(norm="task")
        train_tasks(made, loaders(batches=4), TRAINING, seed=5, optimizers=optimizers)
        found.append(made)
    scores = tasks().by_task(found[0], batches(batches=4, seed=1))
    assert list(scores) == list(NAMES)
    assert min(scores.values()) > 60, scores
    for name, tensor in found[0].state_dict().items():
        assert torch.equal(tensor, found[1].state_dict()[name]), name


def test_one_optimizer_for_each_task_is_adam_by_hand_for_each() -> None:
    made, data = net(merge="mean"), loaders(batches=2)
    twin = net(merge="mean")
    train_tasks(made, data, Training(epochs=1, lr=1e-2, schedule="constant"), seed=5, each=1, optimizers="per-task")
    moments: dict[tuple[str, str], list[Any]] = {}
    for batch in TaskBatches(data, each=1, seed=5):
        task = NAMES[int(batch.inputs.args[1][0])]
        twin.train().zero_grad()
        F.cross_entropy(twin(batch.inputs.args[0], task), batch.targets).backward()
        for name, p in twin.named_parameters():
            if p.grad is None:
                continue
            m, v, t = moments.get((task, name), [torch.zeros_like(p), torch.zeros_like(p), 0])
            m, v, t = 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2, t + 1
            moments[task, name] = [m, v, t]
            with torch.no_grad():
                p -= 1e-2 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    for name, p in made.named_parameters():
        torch.testing.assert_close(p, dict(twin.named_parameters())[name], rtol=1e-3, atol=1e-5)


class Stopped(Exception):  # noqa: N818 - it is none
    pass


class Stopping(KeptTraining):
    """Stops after some steps, as Ctrl-C does."""

    at = 10

    def after_update(self, done: int, total: int, loss: float) -> None:
        super().after_update(done, total, loss)
        if done == self.at:
            raise Stopped


@pytest.mark.parametrize("optimizers", ["one", "per-task"])
def test_an_interrupted_training_goes_on_to_the_same_bits(optimizers: str, tmp_path: Path) -> None:
    whole = net()
    train_tasks(whole, loaders(), TRAINING, seed=5, each=2, optimizers=optimizers)
    place = tmp_path / "state"
    for kind in (Stopping, KeptTraining):
        made, store = net(), Store(place, "x", Accelerator())
        try:
            train_tasks(
                made, loaders(), TRAINING, seed=5, each=2, optimizers=optimizers, kept=kind(store, "tasks", times=27)
            )
        except Stopped:
            assert kind is Stopping
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name]), name


def test_losses_and_metrics_of_mixed_batches_are_those_of_the_parts() -> None:
    made, aim = net().eval(), tasks()
    apart = batches(batches=1)
    x = torch.cat([b.inputs.args[0][: 4 + i] for i, b in enumerate(apart)])
    ids = torch.cat([b.inputs.args[1][: 4 + i] for i, b in enumerate(apart)])
    y = torch.cat([b.targets[: 4 + i] for i, b in enumerate(apart)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    mixed = Batch(Inputs((x[order], ids[order]), {}), y[order])
    outputs = aim.forward(made, mixed)
    torch.testing.assert_close(aim.loss(outputs, mixed), F.cross_entropy(made(x, ids), y))
    named = Batch(Inputs((mixed.inputs.args[0],), {"task": mixed.inputs.args[1]}), mixed.targets)
    assert aim.evaluate(made, [mixed]) == aim.evaluate(made, [named])
    right = (made(x, ids).argmax(1) == y).float()
    by_hand = [100 * float(right[ids == number].mean()) for number in range(3)]
    assert aim.evaluate(made, [mixed]) == pytest.approx(sum(by_hand) / 3)
    assert aim.value(aim.tally(outputs, mixed)) == pytest.approx(sum(by_hand) / 3)
    start = aim.relevance_start(outputs, mixed, "score")
    assert torch.equal(start, Classification().relevance_start(outputs, Batch(None, mixed.targets), "score"))


def of_two_to_four_classes() -> tuple[SegmentNet, dict[str, Any]]:
    """Tasks with two, three and four classes, and data for them."""
    torch.manual_seed(0)
    made = SegmentNet(
        block, paths(), {n: nn.Linear(16, 2 + i) for i, n in enumerate(NAMES)}, after=after, norm="task", residual=True
    )
    return made, {n: [(x, y % (2 + i)) for x, y in loaders((n,), batches=4)[n]] for i, n in enumerate(NAMES)}


@pytest.mark.parametrize("rule", [None, pcgrad])
def test_tasks_with_different_numbers_of_classes_share_batches(rule: Rule | None) -> None:
    made, data = of_two_to_four_classes()
    train_tasks(made, data, Training(epochs=8, lr=2e-2, label_smoothing=0.1), seed=0, order="together", rule=rule)
    assert min(tasks().by_task(made, all_batches(data)).values()) > 60


def test_mixed_outputs_of_different_widths_are_those_of_each_task() -> None:
    """Loss and its gradient, relevance, imitation and metric, by hand on each task's own samples."""
    made, data = of_two_to_four_classes()
    made.eval()
    (whole,) = list(TaskBatches({name: own[:1] for name, own in data.items()}, "together"))
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    x, ids = (part[order] for part in whole.inputs.args)
    mixed, aim = Batch(Inputs((x, ids), {}), whole.targets[order]), tasks()
    outputs = made(x, ids)
    assert outputs.shape == (48, 4)
    loss = aim.loss(outputs, mixed, label_smoothing=0.1)
    own_parts = []
    for name, ((inputs, y), *_) in data.items():
        own = made(inputs, name)
        own_parts.append(F.cross_entropy(own, y, label_smoothing=0.1))
        rows = ids == made.tasks.index(name)
        torch.testing.assert_close(outputs[rows][:, : own.shape[1]], own[order[rows.nonzero().flatten()] % 16])
        assert (outputs[rows][:, own.shape[1] :] == -torch.inf).all()
    by_hand = torch.stack(own_parts).mean()
    torch.testing.assert_close(loss, by_hand)
    weights = list(made.layers.parameters())
    found, wanted = (torch.autograd.grad(a, weights, allow_unused=True, retain_graph=True) for a in (loss, by_hand))
    torch.testing.assert_close(found, wanted)
    start = aim.relevance_start(outputs, mixed, "score")
    assert (start[outputs == -torch.inf] == 0).all()
    assert torch.equal(start[torch.arange(48), mixed.targets], outputs[torch.arange(48), mixed.targets])
    assert torch.equal(aim.decisions(outputs), outputs.argmax(1))
    rolled = made(torch.cat([x[ids == n].roll(1, 0) for n in range(3)]), ids.sort().values)
    sorted_ = torch.cat([outputs[ids == n] for n in range(3)])
    apart = [
        Classification().imitation(made(own, n), made(own.roll(1, 0), n), 2.0)
        for n in range(3)
        for own in (x[ids == n],)
    ]
    torch.testing.assert_close(aim.imitation(sorted_, rolled, 2.0), torch.stack(apart).mean())


def test_a_tasks_errors_name_it() -> None:
    x, y = loaders()["cars"][0]
    made, aim = net(), tasks()
    with pytest.raises(DataError, match=r"batch 1 .*task birds: the data has class 1\d"):
        aim.evaluate(made, [with_task((x, y + 9), 1)])
    with pytest.raises(DataError, match="does not say of which tasks"):
        aim.loss(made(x, 0), (x, y))
    with pytest.raises(DataError, match="0 to 2"):
        aim.loss(made(x, 0), with_task((x, y), 3))
    with pytest.raises(DataError, match="empty"):
        aim.evaluate(made, [])
    with pytest.raises(DataError, match="task 'birds': the training data is empty"):
        train_tasks(made, {"cars": [(x, y)], "birds": []}, Training(epochs=1, lr=1e-2), seed=0)


def test_tasks_may_be_of_several_kinds() -> None:
    heads = {"cars": nn.Linear(16, CLASSES), "birds": nn.Linear(16, 1)}
    found = paths(("cars", "birds"))
    made = SegmentNet(block, found, heads, after=after)
    each: dict[str, Task] = {"cars": Classification(), "birds": task_of("regression")}
    data: dict[str, Any] = loaders(("cars", "birds"))
    data["birds"] = [(x, y.float()) for x, y in data["birds"]]
    aim = Tasks(each)
    assert aim.scale.name == "score"
    before = aim.by_task(made, all_batches(data))
    train_tasks(made, data, Training(epochs=6, lr=1e-2), seed=0, tasks=each)
    found_now = aim.by_task(made, all_batches(data))
    assert found_now["cars"] > before["cars"]
    assert found_now["birds"] < before["birds"], "an error"
    assert aim.evaluate(made, all_batches(data)) == pytest.approx(
        (found_now["cars"] + each["birds"].scale.score(found_now["birds"])) / 2
    )


@pytest.mark.long
def test_it_is_compressed_saved_and_loaded_as_one_network(tmp_path: Path) -> None:
    options: dict[str, Any] = {"shared_head": True, "merge": "gated", "norm": "task"}
    made = net(**options)
    data = [(x, ids, y) for (x, ids), y in ((b.inputs.args, b.targets) for b in batches(batches=4))]
    small = fb.compress(
        made, data, evaluate=data, task=tasks(), recipe={"assign": {"method": "ecq"}, "train": {"epochs": 1}},
        target="2.2 KB", progress=None,
    )  # fmt: skip
    assert len(small.data) <= 2200
    small.save(tmp_path / "net.few")
    again = fb.load(tmp_path / "net.few", like=net(seed=1, **options))
    x = data[0][0]
    for task in NAMES:
        assert torch.equal(again(x, task), small.into(net(**options))(x, task))
        assert torch.equal(again.path(task), made.path(task))
    layers = [name for name in small.plan.clustered if name.startswith("layers.")]
    assert len(layers) == len(paths().users())


def test_numbers_of_tasks_in_another_order_are_refused_and_names_can_be_given() -> None:
    made, turned = net(), dict(reversed(loaders().items()))
    aim = Tasks({name: Classification() for name in NAMES})
    whole = aim.by_task(made, all_batches(loaders()))
    assert aim.by_task(made, all_batches(turned, tasks=made.tasks)) == whole
    some = {"flowers": loaders()["flowers"]}
    assert aim.by_task(made, all_batches(some, tasks=made.tasks)) == {"flowers": whole["flowers"]}
    with pytest.raises(DataError, match="give the same order"):
        Tasks({name: Classification() for name in reversed(NAMES)}).by_task(made, all_batches(turned))
    with pytest.raises(RecipeError, match="no task 'birdz'; did you mean 'birds'"):
        all_batches({"birdz": some["flowers"]}, tasks=made.tasks)
