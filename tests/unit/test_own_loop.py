"""Compression around a training loop of one's own."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import fewbits as fb
from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.task import accuracy

SIZE, COUNT = 32, 8


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1))


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(SIZE * COUNT) % 4
    x = torch.randn(len(y), 1, 8, 8, generator=generator) * 0.5
    for i, k in enumerate(y.tolist()):
        x[i, 0, 2 * k : 2 * k + 2] += 1.5
    return list(zip(x.split(SIZE), y.split(SIZE), strict=True))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Small()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for x, y in data() * 2:
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net


def recipe(**changes: Any) -> dict[str, Any]:
    assign = {"method": "ecq", "bits": 4, "options": {"zero_floor": 0.5}}
    return {"assign": assign, "train": {"epochs": 2, "lr": 1e-3, "schedule": "constant"}, "rounds": 4} | changes


def trained(job: Any, net: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, schedule: Any = None) -> None:
    net.train()
    for x, y in batches:
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        job.after_backward(y)
        optimizer.step()
        optimizer.zero_grad()
        job.after_step(loss)
        if schedule is not None:
            schedule.step()


def test_the_loop_of_a_user_gives_the_bytes_of_ours() -> None:
    net = network()
    ours = fb.compress(net, data(), recipe=recipe(), target="600 B")
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    torch.manual_seed(0)
    with fb.compressing(net, recipe(), target="600 B", steps=2 * COUNT) as job:
        trained(job, net, optimizer, data() * 2)
        small = job.finish()
    assert small.data == ours.data
    assert small.report.identical
    assert 0.98 * 600 <= small.report.file_bytes <= 600


@pytest.mark.parametrize("method", ["ecq", "ecqx", "ternary", "none"])
def test_the_model_is_the_compressed_network_afterwards(method: str, tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    changes: dict[str, Any] = {"assign": {"method": method} | ({"lam": 0.1} if method.startswith("ecq") else {})}
    if method == "none":
        changes["prune"] = {"sparsity": 0.5}
    with fb.compressing(net, recipe(**changes), steps=COUNT, optimizer=optimizer) as job:
        trained(job, net, optimizer, data())
        small = job.finish(data())
    assert small.report.accuracy_before is not None
    assert not any(parametrize.is_parametrized(module) for module in net.modules())
    small.save(tmp_path / "net.few")
    loaded = fb.load(tmp_path / "net.few", like=Small())
    for name, tensor in loaded.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(tensor, net.state_dict()[name]), name
    x = data()[0][0]
    assert torch.equal(loaded(x), net.eval()(x))
    assert small.report.accuracy_after == pytest.approx(accuracy(net, data()))


LEARNING: dict[str, Any] = {"train": {"learn": True}, "assign": {"method": "ecq", "lam": 0.1}}


def test_steps_and_centroids_are_trained_with_the_optimizer() -> None:
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    before = [id(p) for p in net.parameters()]
    with fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=optimizer) as job:
        tables = [p for name, p in net.named_parameters() if name.endswith(".table")]
        first = [float(table.detach()) for table in tables]
        trained(job, net, optimizer, data())
        assert all(float(table.detach()) != size for table, size in zip(tables, first, strict=True))
        assert all(table.grad is None for table in tables)  # as all others, by zero_grad
        job.finish()
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == before
    assert not optimizer._optimizer_step_pre_hooks  # type: ignore[attr-defined]
    net, optimizer = network(), torch.optim.Adam(net.parameters(), 1e-3)
    with fb.compressing(net, recipe(**LEARNING), steps=COUNT) as job:
        assert len(optimizer.param_groups[0]["params"]) == len(before)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_steps_are_trained_as_in_our_loop(kind: str) -> None:
    learning: dict[str, Any] = {"epochs": 2, "optimizer": kind, "lr": 1e-3, "schedule": "cosine", "learn": True}
    whole = recipe(assign={"method": "ecq", "lam": 0.1}, train=learning)
    ours = fb.compress(network(), data(), recipe=whole)
    net = network()
    optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    if kind == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, nesterov=True)
    total = 2 * COUNT
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 0.5 * (1 + math.cos(math.pi * done / total)))
    torch.manual_seed(0)
    with fb.compressing(net, whole, steps=total, optimizer=optimizer) as job:
        trained(job, net, optimizer, data() * 2, schedule)
        assert job.finish().data == ours.data


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=COUNT + 1),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 1e-4, 1e-3, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.CosineAnnealingLR(o, 10)],
            milestones=[3],
        ),
    ],
)
def test_schedules_that_were_made_before(schedule: Any) -> None:
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    made = schedule(optimizer)
    with fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=optimizer) as job:
        trained(job, net, optimizer, data(), made)
        assert job.training.grids is not None
        for group in job.training.grids.own.param_groups:
            assert 0 < group["lr"] <= group["initial_lr"]
        assert job.finish().report.identical


def test_gradients_of_steps_are_unscaled_with_all_others() -> None:
    def run(scale: float) -> bytes:
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), 1e-2)
        scaler = torch.amp.GradScaler("cpu", scale)
        with fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=optimizer) as job:
            for x, y in data():
                scaler.scale(F.cross_entropy(net.train()(x), y)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                job.after_step()
            return job.finish().data

    assert run(1.0) == run(1024.0)


def test_an_optimizer_with_one_group_and_closures() -> None:
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3)
    x, y = data()[0]
    with fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=optimizer) as job:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(net.train()(x), y)
            loss.backward()
            return loss

        for _ in range(COUNT):
            loss = optimizer.step(closure)
            job.after_step(loss)
        assert job.finish().report.identical


@pytest.mark.parametrize(("given", "early"), [(False, False), (True, False), (True, True)])
def test_an_interrupted_loop_goes_on_to_the_same_bytes(given: bool, early: bool) -> None:
    def run(stop: int | None, saved: list[Any]) -> bytes | None:
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        batches = data() * 2
        if saved and early and stop is None:
            optimizer.load_state_dict(saved[1])
        own = optimizer if given else None
        with fb.compressing(
            net, recipe(train={"learn": True}), target="600 B", steps=len(batches), optimizer=own
        ) as job:
            assert (job.training.grids is None) is not given
            done = 0
            if saved and stop is None:
                job.load_state_dict(saved[0])
                if not early:
                    optimizer.load_state_dict(saved[1])
                done = saved[2]
            trained(job, net, optimizer, batches[done:stop])
            if stop is not None:
                saved += [*copy.deepcopy((job.state_dict(), optimizer.state_dict())), stop]
                return None
            return job.finish().data

    whole = run(None, [])
    saved: list[Any] = []
    run(5, saved)
    assert run(None, saved) == whole


@pytest.mark.parametrize("given", [True, False])
def test_a_state_goes_with_a_loop_that_trains_the_same(given: bool) -> None:
    def loop(given: bool) -> Any:
        net = network()
        own = torch.optim.Adam(net.parameters(), 1e-3) if given else None
        return fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=own)

    with loop(given) as job:
        saved = copy.deepcopy(job.state_dict())
    words = "without optimizer=, and this one is with" if not given else "with optimizer=, and this one is without"
    with loop(not given) as job, pytest.raises(RecipeError, match=words):
        job.load_state_dict(saved)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.5, 0.9), amsgrad=True), torch.optim.Adam),
        (lambda p: torch.optim.SGD(p, 1e-3, momentum=0.5, dampening=0.1, maximize=True), torch.optim.SGD),
        (lambda p: torch.optim.RMSprop(p, 1e-3, maximize=True), torch.optim.Adam),
    ],
)
def test_steps_are_trained_with_the_options_of_the_optimizer(made: Any, kind: type[torch.optim.Optimizer]) -> None:
    net = network()
    optimizer = made(net.parameters())
    with fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=optimizer) as job:
        own = job.training.grids.own  # type: ignore[union-attr]
        assert isinstance(own, kind)
        for key in {"momentum", "dampening", "nesterov", "betas", "eps", "amsgrad", "maximize"} & set(own.defaults):
            if key in optimizer.defaults and (kind is not torch.optim.Adam or isinstance(optimizer, kind)):
                assert own.defaults[key] == optimizer.defaults[key], key
        assert own.defaults["maximize"] == optimizer.defaults["maximize"]
        assert own.defaults["weight_decay"] == 0


def test_an_optimizer_around_another_one_is_refused_before_the_loop() -> None:
    class Around(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:  # as timm's Lookahead, without torch's own
            self.inner, self.defaults, self.param_groups = inner, inner.defaults, inner.param_groups

    net = network()
    around = Around(torch.optim.Adam(net.parameters(), 1e-3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(RecipeError, match=r"Around has no hooks of torch\.optim\.Optimizer.*leave optimizer= out"):
        fb.compressing(net, recipe(**LEARNING), steps=COUNT, optimizer=around)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_without_finish_the_float_weights_are_back() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def interrupted() -> None:
        with fb.compressing(net, recipe(), steps=4):
            assert not torch.equal(net.head.weight, before["head.weight"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert type(net.head) is nn.Linear
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@pytest.mark.parametrize("finished", [True, False])
def test_frozen_layers_are_frozen_afterwards(finished: bool) -> None:
    net = network()
    net.conv.requires_grad_(False)
    before = net.conv.weight.clone()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-3)
    with fb.compressing(net, recipe(assign={"method": "ecq", "lam": 0.02}), steps=COUNT, optimizer=optimizer) as job:
        trained(job, net, optimizer, data())
        if finished:
            job.finish()
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == {"conv.weight", "conv.bias"}
    assert finished or torch.equal(net.conv.weight, before)


def test_accumulated_gradients_and_evaluations_between_steps() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    with fb.compressing(net, recipe(assign={"method": "ecqx", "lam": 0.1}), steps=COUNT // 2) as job:
        for i, (x, y) in enumerate(data()):
            F.cross_entropy(net.train()(x), y).backward()
            if i % 2:
                job.after_backward(y)
                optimizer.step()
                optimizer.zero_grad()
                job.after_step()
                accuracy(net, data())
        assert job.finish().report.identical


def test_relevance_needs_targets() -> None:
    net = network()
    x, y = data()[0]
    with fb.compressing(net, recipe(assign={"method": "ecqx", "lam": 0.1}), steps=2) as job:
        net.train()(x).sum().backward()
        with pytest.raises(DataError, match=r"after_backward\(targets\)"):
            job.after_backward()
        net(x).sum().backward()
        with pytest.raises(DataError, match="class 12"):
            job.after_backward(y + 9)


def test_more_steps_than_announced_and_nothing_computed() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with fb.compressing(net, recipe(assign={"method": "ecq", "lam": 0.1}), steps=2) as job:
        with pytest.raises(DataError, match="computed nothing"):
            job.finish()
        trained(job, net, optimizer, data()[:2])
        with pytest.raises(RecipeError, match="2 steps"):
            job.after_step()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": {"macs": 0.5}}, "channels"),
        ({"assign": {"method": "int8"}}, "int8"),
        ({"assign": {"method": "ecq", "bits": "auto"}, "target": "1 KB"}, "auto"),
        ({"prune": {"method": "scores", "sparsity": 0.5}, "assign": {"method": "ecqx", "lam": 0.1}}, "scores"),
        ({"max_drop": 1.0}, "evaluate"),
    ],
)
def test_what_needs_our_loop_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        fb.compressing(network(), recipe(**changes), steps=4)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_are_a_number(steps: Any) -> None:
    with pytest.raises(RecipeError, match="whole number"):
        fb.compressing(network(), recipe(), steps=steps)


def test_networks_that_are_not_plain_are_refused_before_anything_changes() -> None:
    net = network()
    nn.utils.parametrizations.weight_norm(net.head)
    with pytest.raises(UnsupportedError, match=r"head: .*remove_parametrizations"):
        fb.compressing(net, recipe(), steps=4)
    with pytest.raises(UnsupportedError, match=r"model\.float\(\)"):
        fb.compressing(network().double(), recipe(), steps=4)


def test_calls_outside_of_the_with_are_refused() -> None:
    net = network()
    job = fb.compressing(net, recipe=recipe(), steps=COUNT)
    with pytest.raises(RecipeError, match=r"job.after_backward\(\) is called outside"):
        job.after_backward()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with job:
        trained(job, net, optimizer, data())
    with pytest.raises(RecipeError, match=r"job.finish\(\) is called outside of 'with fb.compressing"):
        job.finish()
    with pytest.raises(RecipeError, match=r"job.after_step\(\) is called outside"):
        job.after_step()


def test_a_step_without_the_relevance_that_the_method_needs_is_refused() -> None:
    net, (x, y) = network(), data()[0]
    assign = {"method": "ecqx", "bits": 4}
    with fb.compressing(net, recipe=recipe(assign=assign), steps=2) as job:
        F.cross_entropy(net.train()(x), y).backward()
        with pytest.raises(RecipeError, match=r"ecqx measures relevance in this step: call job.after_backward"):
            job.after_step()


def test_inputs_may_come_out_of_another_network_that_is_trained() -> None:
    """As a discriminator's do, or a head's behind a trained stem."""
    net, stem = network(), nn.Conv2d(1, 1, 3, padding=1)
    optimizer = torch.optim.Adam([*net.parameters(), *stem.parameters()], 1e-3)
    with fb.compressing(net, recipe=recipe(), steps=COUNT, optimizer=optimizer) as job:
        for x, y in data():
            F.cross_entropy(net.train()(stem(x)), y).backward()
            job.after_backward()
            optimizer.step()
            optimizer.zero_grad()
            job.after_step()
        done = job.finish()
    assert done.report.identical
    assert not job.inputs.requires_grad
