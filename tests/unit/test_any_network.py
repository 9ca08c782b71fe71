"""The main job on data, metrics and networks of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import fewbits as fb
from fewbits.errors import DataError, NonFiniteError, RecipeError, UnsupportedError
from fewbits.task import accuracy

QUICK: dict[str, Any] = {"assign": {"method": "ecq", "bits": 4, "lam": 0.05}, "train": {"epochs": 1}, "rounds": 2}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def batches(count: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        y = torch.randint(4, (16,), generator=generator)
        x = torch.randn(16, 8, generator=generator)
        x[torch.arange(16), 2 * y] += 3
        found.append((x, y))
    return found


class Rows(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for x, y in batches():
            yield from zip(x, y, strict=True)


def test_a_stream_needs_steps_and_takes_so_many() -> None:
    loader = DataLoader(Rows(), batch_size=16)
    with pytest.raises(DataError, match=r"DataLoader has no length.*steps="):
        fb.compress(network(), loader, recipe=QUICK)
    assert fb.compress(network(), loader, recipe=QUICK, steps=9).report.steps == 9
    assert fb.compress(network(), batches(), recipe=QUICK, steps=9).report.steps == 9


@pytest.mark.parametrize(
    ("metric", "evaluate", "shown"),
    [
        ("percent", lambda net: accuracy(net, batches()), 1),
        ("fraction", lambda net: accuracy(net, batches()) / 100, 1),
        ("score", lambda net: accuracy(net, batches()) - 50, 1),
        ("loss", lambda net: 100 - accuracy(net, batches()), -1),
    ],
)
def test_whatever_the_scale_the_same_file_is_chosen(metric: str, evaluate: Any, shown: int) -> None:
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for x, y in batches() * 3:
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    recipe = QUICK | {"assign": {"method": "ecq", "bits": 4}, "pilots": 0, "tries": 3}
    done = fb.compress(net, batches(), evaluate=evaluate, metric=metric, max_drop=2.0, recipe=recipe)
    plain = fb.compress(net, batches(), evaluate=lambda n: accuracy(n, batches()), max_drop=2.0, recipe=recipe)
    assert done.data == plain.data
    assert done.report.met is plain.report.met
    assert done.report.drop == pytest.approx(plain.report.drop)
    assert done.report.accuracy_after is not None
    measured = evaluate(done.into(network())) * (100 if metric == "fraction" else 1)
    assert done.report.accuracy_after == pytest.approx(measured)
    words = {"loss": "loss ", "score": "score "}.get(metric, "accuracy ")
    assert words in str(done.report)


def test_metrics_that_are_none() -> None:
    with pytest.raises(RecipeError, match="did you mean 'fraction'"):
        fb.compress(network(), batches(), evaluate=lambda net: 1.0, metric="fractoin", recipe=QUICK)
    with pytest.raises(RecipeError, match="own metric"):
        fb.compress(network(), batches(), evaluate=batches(), metric="loss", recipe=QUICK)
    with pytest.raises(DataError, match="evaluation data is empty"):
        fb.compress(network(), batches(), evaluate=[], recipe=QUICK)
    with pytest.raises(DataError, match=r"batch 1 of the validation data.*class 7"):
        fb.compress(network(), batches(), evaluate=[(batches()[0][0], torch.full((16,), 7))], recipe=QUICK)
    with pytest.raises(NonFiniteError, match="evaluate returned nan"):
        fb.compress(network(), batches(), evaluate=lambda net: float("nan"), metric="loss", recipe=QUICK)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_in_other_types_are_evaluated_in_them(dtype: torch.dtype) -> None:
    net = network().to(dtype)
    data = [(x.to(dtype), y) for x, y in batches()]

    def percent(model: nn.Module) -> float:
        assert next(model.parameters()).dtype == dtype
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data)
        return 100 * right / sum(len(y) for _, y in data)

    done = fb.compress(net, data, evaluate=percent, recipe=QUICK)
    assert done.report.identical
    assert done.report.accuracy_after == percent(done.into(network().to(dtype)))


def test_what_is_frozen_in_part_stays_so_but_for_what_is_compressed() -> None:
    net = network()
    net[0].requires_grad_(False)
    done = fb.compress(net, batches(), recipe=QUICK | {"train": {"epochs": 3, "lr": 1e-2}, "floats": "float32"})
    assert torch.equal(done.plan["0.bias"].values(), net[0].bias)
    assert not torch.equal(done.plan["2.bias"].values(), net[2].bias)
    assert not net[0].weight.requires_grad, "the network that was given is as it was"


class Counted(nn.Module):
    """With a buffer whose name ends as a counter's does, and which the output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("my_num_batches_tracked", torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.my_num_batches_tracked


def test_a_buffer_that_is_called_like_a_counter_is_none() -> None:
    done = fb.compress(Counted(), batches(), recipe=QUICK)
    assert float(done.plan["my_num_batches_tracked"].values()) == 3.0
    assert done.report.identical


def test_one_entry_of_a_section_is_changed_and_the_rest_kept() -> None:
    from fewbits.recipe import load

    recipe = load("ecq-4bit")
    changed = recipe.updated(train={"epochs": 4})
    assert changed.train == recipe.train.model_copy(update={"epochs": 4})
    assert changed.assign == recipe.assign
    assert recipe.updated(train=None).train.epochs == 0


class Detector(nn.Module):
    """As torchvision's: losses in training, boxes and scores in evaluation; here no loss reaches the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.boxes, self.scores = nn.Linear(10, 16), nn.Linear(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor, targets: Any = None) -> dict[str, Tensor]:
        h = torch.relu(self.body(x))
        boxes = self.boxes(h)
        if self.training:
            return {"boxes": nn.functional.l1_loss(boxes, torch.stack([t["box"] for t in targets]))}
        return {"boxes": boxes, "scores": self.scores(h)}


@pytest.mark.parametrize("measure", [None, "taylor", "fisher", "relevance"])
def test_a_network_that_returns_losses_while_it_trains(measure: str | None) -> None:
    torch.manual_seed(0)
    data = [(torch.randn(6, 10), [{"box": torch.rand(4)} for _ in range(6)]) for _ in range(3)]
    task = fb.Task(loss=lambda losses, targets: sum(losses.values()))
    recipe = {"assign": {"method": "ecqx" if measure else "ecq"}, "train": {"epochs": 1}}
    recipe |= {"measure": {"name": measure}} if measure else {}
    options: dict[str, Any] = {"inputs": (0, 1), "targets": 1, "task": task, "target": "300 B", "progress": None}
    if measure == "relevance":
        with pytest.raises(UnsupportedError, match="relevance begins at one tensor"):
            fb.compress(Detector(), data, recipe=recipe, **options)
        return
    assert fb.compress(Detector(), data, recipe=recipe, **options).report.identical
