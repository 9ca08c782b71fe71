"""Bad batches, loaders, evaluations, networks, teachers and recipes, each in each place: one sentence that names it.

Everything goes through :func:`fewbits.compress` as a user calls it. What is refused is a :class:`FewbitsError` of one
sentence, within seconds and before work is lost. Errors of a user's own ``evaluate`` and ``progress`` stay his own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fewbits as fb
from fewbits.errors import (
    BudgetError,
    DataError,
    FewbitsError,
    FileError,
    NonFiniteError,
    RecipeError,
    SelectionError,
    UnsupportedError,
)

NAN, INF = float("nan"), float("inf")


class Net(nn.Module):
    """Six numbers in, three classes out; ``last`` changes what it returns."""

    def __init__(self, last: Callable[[Tensor], Any] | None = None) -> None:
        super().__init__()
        self.a, self.head, self.last = nn.Linear(6, 5), nn.Linear(5, 3), last

    def forward(self, x: Tensor) -> Any:
        out = self.head(F.relu(self.a(x)))
        return out if self.last is None else self.last(out)


GENERATOR = torch.Generator().manual_seed(0)
GOOD = [(torch.randn(4, 6, generator=GENERATOR), torch.arange(4) % 3) for _ in range(4)]
X, Y = GOOD[0]
ECQ: dict[str, Any] = {
    "train": {"epochs": 1, "lr": 1e-3},
    "rounds": 2,
    "assign": {"method": "ecq", "bits": 4, "lam": 0.1},
}
INT8: dict[str, Any] = {"assign": {"method": "int8"}, "train": None}
DISTILLED: dict[str, Any] = ECQ | {"train": {"epochs": 1, "lr": 1e-3, "distill": 0.5}}


class Given:
    """A loader that yields these; errors among them are raised."""

    def __init__(self, items: list[Any], length: Any = None) -> None:
        self.items, self.length = items, length

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        return len(self.items) if self.length is None else self.length

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


def refused(call: Callable[[], Any], words: str, *kinds: type[FewbitsError]) -> None:
    started = time.process_time()
    with pytest.raises(kinds or FewbitsError) as caught:
        call()
    assert time.process_time() - started < 5
    message = str(caught.value)
    assert re.search(words, message), message
    assert 10 < len(message) < 600
    assert "\n" not in message


# -- batches, in every place where one is read ------------------------------------------------------------

INPUTS: dict[str, Any] = {
    "no samples": (X[:0], Y[:0]),
    "NaN": (X * NAN, Y),
    "infinity": (X / 0, Y),
    "text": (["a", "b"], Y),
    "None": (None, Y),
    "no batch": None,
    "a number": 7,
    "a text": "batch",
    "an empty tuple": (),
    "an empty dict": {},
    "other names": {"p": X, "q": X, "y": Y},
    "three parts": (X, Y, Y),
    "another width": (X[:, :5], Y),
    "integers": (X.long(), Y),
    "bytes": (X.byte(), Y),
    "complex numbers": (X.to(torch.complex64), Y),
    "texts of numpy": (np.array(["a"] * 4), Y),
    "objects of numpy": (np.array([object()] * 4), Y),
    "ragged lists": ([[1.0, 2.0], [3.0]], Y),
    "no dimension": (torch.tensor(1.0), torch.tensor(1)),
    "no numbers": (X.to("meta"), Y),
    "a set": {1, 2},
}
TARGETS: dict[str, Any] = {
    "class beyond": (X, torch.full((4,), 3)),
    "class -1": (X, torch.full((4,), -1)),
    "class -100": (X, torch.full((4,), -100)),
    "NaN": (X, torch.full((4,), NAN)),
    "floats": (X, Y.float()),
    "too few": (X, Y[:3]),
    "two for each": (X, torch.stack([Y, Y], 1)),
    "texts": (X, ["a", "b", "c", "d"]),
    "none": (X, None),
    "none in a dict": {"x": X},
    "none beside the inputs": X,
    "one sample without a batch": (X[0], Y[:1]),
}
LOADERS: dict[str, Exception] = {
    "an error": RuntimeError("disk gone"),
    "a missing key": KeyError("label"),
    "a missing file": FileNotFoundError(2, "No such file", "7.png"),
    "an error of many lines": ValueError("a\nb\nTraceback\nValueError: c"),
}


def train(bad: Any, at: int) -> None:
    fb.compress(Net(), Given([*GOOD[:at], bad, *GOOD[at + 1 :]]), recipe=ECQ, progress=None)


def scores(bad: Any, at: int) -> None:
    recipe = ECQ | {"assign": {"method": "ecqx", "bits": 4, "lam": 0.1}}
    fb.compress(Net(), Given([*GOOD[:at], bad, *GOOD[at + 1 :]]), recipe=recipe, progress=None)


def teach(bad: Any, at: int) -> None:
    batches = Given([*GOOD[:at], bad, *GOOD[at + 1 :]])
    fb.compress(Net(), batches, recipe=DISTILLED, teacher=Net(), progress=None)


def evaluate(bad: Any, at: int) -> None:
    fb.compress(Net(), GOOD, evaluate=Given([*GOOD[:at], bad, *GOOD[at + 1 :]]), recipe=ECQ, progress=None)


def calibrate(bad: Any, at: int) -> None:
    fb.compress(Net(), Given([*GOOD[:at], bad, *GOOD[at + 1 :]]), recipe=INT8, progress=None)


PLACES: dict[str, tuple[Callable[[Any, int], None], int, str]] = {
    "first batch": (train, 0, "training"),
    "later batch": (train, 2, "training"),
    "batch that is scored": (scores, 1, "training"),
    "teacher's batch": (teach, 2, "training"),
    "first validation batch": (evaluate, 0, "validation"),
    "later validation batch": (evaluate, 2, "validation"),
    "calibration batch": (calibrate, 2, "(calibration|training)"),
}


@pytest.mark.parametrize("place", [place for place in PLACES if place != "batch that is scored"])
@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_that_do_not_fit(kind: str, place: str) -> None:
    call, at, data = PLACES[place]
    refused(lambda: call(INPUTS[kind], at), f"batch {at + 1} of the {data} data", DataError, NonFiniteError)


@pytest.mark.parametrize(
    "place", ["later batch", "batch that is scored", "first validation batch", "later validation batch"]
)
@pytest.mark.parametrize("kind", TARGETS)
def test_targets_that_do_not_fit(kind: str, place: str) -> None:
    call, at, data = PLACES[place]
    refused(lambda: call(TARGETS[kind], at), f"batch {at + 1} of the {data} data", DataError)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", LOADERS)
def test_a_loader_that_raises_in_the_middle(kind: str, place: str) -> None:
    call, at, data = PLACES[place]
    error = LOADERS[kind]
    with pytest.raises(DataError) as caught:
        call(error, at)
    assert caught.value.__cause__ is error
    assert re.search(rf"the {data} data: its loader fails after {at} batches with", str(caught.value))
    assert "\n" not in str(caught.value)


# -- loaders, and how their batches are split --------------------------------------------------------------


class Items(Dataset[tuple[Tensor, Tensor]]):
    """Samples that end at the ninth with an error; ``grow``: or get longer from one to the next."""

    def __init__(self, *, grow: bool = False) -> None:
        self.grow = grow

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if i == 9 and not self.grow:
            raise RuntimeError("file 9")
        return torch.zeros(6 + i * self.grow), torch.tensor(0)


def fit(loader: Any, **options: Any) -> Callable[[], Any]:
    return lambda: fb.compress(Net(), loader, **{"recipe": ECQ, "progress": None} | options)


def endless(items: list[Any]) -> Any:
    return type("Endless", (), {"__iter__": lambda self: iter(items)})()


LOADING: dict[str, tuple[Callable[[], Any], str]] = {
    "a text": (fit("data"), "training data: str holds no batches"),
    "a tensor": (fit(X), "training data: .* holds no batches"),
    "a dict": (fit({"a": GOOD}), "training data: .* holds no batches"),
    "a number": (fit(5), "training data: int holds no batches"),
    "a function": (fit(lambda: GOOD), "training data: function holds no batches"),
    "an iterator": (fit(iter(GOOD)), "read only once"),
    "a generator": (fit(batch for batch in GOOD), "read only once"),
    "nothing": (fit([]), "training data is empty"),
    "a data set": (fit(TensorDataset(X, Y)), "(TensorDataset|holds no batches)"),
    "no length": (fit(endless(GOOD)), "has no length; .* steps="),
    "a length beyond": (fit(Given(GOOD, 9)), "length of the training data is 9 batches, but it yields 4"),
    "a length below": (fit(Given(GOOD, 2), recipe=ECQ | {"train": {"epochs": 3}}), "is 2 batches, but it yields 3 or"),
    "a length of 0": (fit(Given(GOOD, 0)), "training data is empty"),
    "a negative length": (fit(Given(GOOD, -1)), "length of the training data"),
    "a length that raises": (fit(Given(GOOD, ZeroDivisionError("n"))), "length of the training data"),
    "a length of text": (fit(Given(GOOD, "a")), "has no length"),
    "a DataLoader that fails": (fit(DataLoader(Items(), 4)), "its loader fails .* RuntimeError: file 9"),
    "samples of many sizes": (fit(DataLoader(Items(grow=True), 4)), "its loader fails after 0 .* equal size"),
    "an empty DataLoader": (fit(DataLoader(TensorDataset(X[:0], Y[:0]), 4)), "is empty"),
    "all batches dropped": (fit(DataLoader(TensorDataset(X, Y), 8, drop_last=True)), "is empty"),
    "steps of 0": (fit(GOOD, steps=0), "steps is a whole number"),
    "steps of 1.5": (fit(GOOD, steps=1.5), "steps is a whole number"),
    "steps in words": (fit(GOOD, steps="many"), "steps is a whole number"),
    "a stream of nothing": (fit(endless([]), steps=3), "training data is empty"),
    "inputs that are missing": (fit(GOOD, inputs="pixels"), "batch 1 .*inputs='pixels'"),
    "targets that are missing": (fit(GOOD, targets=7), "batch 1 .*targets=7"),
    "inputs that are targets": (fit(GOOD, inputs=0, targets=0), "inputs and targets are both 0"),
    "inputs by a number": (fit(GOOD, inputs=3.5), "inputs is a key"),
    "inputs by what raises": (fit(GOOD, inputs=lambda b: b["x"]), "batch 1 .*function inputs= fails"),
    "targets by what raises": (fit(GOOD, inputs=0, targets=lambda b: b.y), "batch 1 .*function targets= fails"),
    "inputs by what gives none": (fit(GOOD, inputs=lambda b: None), "batch 1 .*no tensor among the inputs"),
    "batches within a batch": (fit([[GOOD, GOOD]]), "batch 1 of the training data"),
}


@pytest.mark.parametrize("kind", LOADING)
def test_loaders(kind: str) -> None:
    refused(LOADING[kind][0], LOADING[kind][1], DataError, RecipeError)


def test_a_worker_that_fails_is_told_in_a_line() -> None:
    loader = DataLoader(Items(), 4, num_workers=1)
    refused(fit(loader), r"its loader fails after \d batches with RuntimeError: file 9", DataError)


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)


# -- evaluate ----------------------------------------------------------------------------------------------


class Odd:
    def __float__(self) -> float:
        raise RuntimeError("no float")


VALUES: dict[str, Any] = {
    "NaN": NAN,
    "infinity": INF,
    "None": None,
    "two numbers": torch.ones(2),
    "a text": "90 %",
    "a dict": {"acc": 90},
    "a tuple": (90.0, 1.0),
    "a complex number": 1j,
    "NaN in a tensor": torch.tensor(NAN),
    "an empty list": [],
    "what is no number": Odd(),
}


@pytest.mark.parametrize("call", [1, 2], ids=["at first", "later"])
@pytest.mark.parametrize("kind", VALUES)
def test_what_evaluate_returns(kind: str, call: int) -> None:
    calls = iter([50.0] * (call - 1))
    refused(
        fit(GOOD, evaluate=lambda net: next(calls, VALUES[kind])), "evaluate returned .* has to return", FewbitsError
    )


EVALUATING: dict[str, tuple[Callable[[], Any], str]] = {
    "a fraction": (fit(GOOD, evaluate=lambda net: 0.9), 'metric="fraction"'),
    "a text": (fit(GOOD, evaluate="accuracy"), "the validation data: str holds no batches"),
    "a number": (fit(GOOD, evaluate=3), "the validation data: int holds no batches"),
    "a tensor": (fit(GOOD, evaluate=X), "the validation data: .* holds no batches"),
    "an iterator": (fit(GOOD, evaluate=iter(GOOD)), "the validation data: .* read only once"),
    "no batches": (fit(GOOD, evaluate=[]), "evaluation data is empty"),
    "two arguments": (fit(GOOD, evaluate=lambda net, data: 1.0), "evaluate is called with one network"),
    "no arguments": (fit(GOOD, evaluate=lambda: 1.0), "evaluate is called with one network"),
    "a class": (fit(GOOD, evaluate=NoForward), "evaluate is called with one network"),
    "an unknown metric": (fit(GOOD, evaluate=lambda net: 50.0, metric="f1"), "no metric named 'f1'"),
    "a metric of a number": (fit(GOOD, evaluate=lambda net: 50.0, metric=3), "no metric named 3"),
    "a metric over batches": (fit(GOOD, evaluate=GOOD, metric="loss"), "metric is for an evaluate function"),
}


@pytest.mark.parametrize("kind", EVALUATING)
def test_evaluations(kind: str) -> None:
    refused(EVALUATING[kind][0], EVALUATING[kind][1])


def test_an_evaluation_that_ruins_its_network_ruins_a_copy() -> None:
    found = []
    for evaluate in (lambda net: [p.data.fill_(NAN) for p in net.parameters()] and 50.0, lambda net: 50.0):
        torch.manual_seed(0)
        found.append(fit(GOOD, evaluate=evaluate)().data)
    assert found[0] == found[1]


# -- networks and teachers ---------------------------------------------------------------------------------


def changed(change: Callable[[Net], Any]) -> nn.Module:
    net = Net()
    with torch.no_grad():
        change(net)
    return net


def raises(error: Exception) -> Callable[[Any], Any]:
    def function(*args: Any) -> Any:
        raise error

    return function


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.a(x + z)


NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "the network is of type NoneType"),
    "a state dict": (lambda: Net().state_dict(), "the network is of type OrderedDict"),
    "a class": (lambda: Net, r"the network is the class Net, .*call it"),
    "a function": (lambda: lambda x: x, "the network is of type function"),
    "a path": (lambda: "net.pt", "the network is of type str"),
    "a list": (lambda: [nn.Linear(6, 3)], "the network is of type list"),
    "TorchScript": (lambda: torch.jit.trace(Net(), X), "TorchScript"),
    "NaN in a weight": (lambda: changed(lambda net: net.a.weight[0].fill_(NAN)), "a.weight: 6 of 30"),
    "infinity in a bias": (lambda: changed(lambda net: net.head.bias.fill_(INF)), "head.bias: 3 of 3"),
    "NaN in a buffer": (lambda: changed(lambda net: net.register_buffer("k", torch.tensor(NAN))), "k: 1 of 1"),
    "no parameters": (lambda: nn.Sequential(nn.Flatten()), "no linear or convolutional layer"),
    "no weights": (lambda: nn.BatchNorm1d(6), "no linear or convolutional layer"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "0.weight has no shape yet"),
    "on the meta device": (lambda: nn.Sequential(nn.Linear(6, 3, device="meta")), "0.weight holds no numbers"),
    "empty weights": (lambda: nn.Sequential(nn.Linear(0, 3)), "batch 1 of the training data"),
    "a lock": (lambda: changed(lambda net: setattr(net, "lock", threading.Lock())), "cannot be copied"),
    "forward raises": (lambda: Net(raises(RuntimeError("kernel"))), "batch 1 .*RuntimeError: kernel"),
    "a hook raises": (
        lambda: changed(lambda net: net.a.register_forward_hook(raises(ValueError("hook")))),
        "batch 1 .*ValueError: hook",
    ),
    "returns None": (lambda: Net(lambda out: None), "batch 1 .*returns NoneType"),
    "returns text": (lambda: Net(lambda out: "a"), "batch 1 .*returns str"),
    "returns a number": (lambda: Net(lambda out: 3.0), "batch 1 .*returns float"),
    "returns an array": (lambda: Net(lambda out: out.detach().numpy()), "batch 1 .*returns ndarray"),
    "returns classes": (lambda: Net(lambda out: out.argmax(1)), r"batch 1 .*outputs of shape \(4,\)"),
    "returns a sum": (lambda: Net(lambda out: out.sum()), r"batch 1 .*outputs of shape \(\)"),
    "loses samples": (lambda: Net(lambda out: out[:2]), r"batch 1 .*outputs of shape \(2, 3\)"),
    "detached": (lambda: Net(lambda out: out.detach()), "no gradient of the loss reaches Net"),
    "gives NaN": (lambda: Net(lambda out: out * NAN), "batch 1 .*nothing was trained yet"),
    "gives infinity": (lambda: Net(lambda out: out * INF), "batch 1 .*nothing was trained yet"),
    "wants two inputs": (TwoInputs, "batch 1 .*missing 1 required"),
    "without forward": (NoForward, "batch 1 .*forward"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks(kind: str) -> None:
    make, words = NETWORKS[kind]
    refused(lambda: fb.compress(make(), GOOD, recipe=ECQ, progress=None), words)


def test_skeletons_that_are_no_network(tmp_path: Path) -> None:
    fb.compress(Net(), GOOD, recipe=ECQ, progress=None).save(tmp_path / "net.few")
    for like, words in ((Net, "like= is the class Net"), (None, "like= is of type NoneType"), ({}, "like= is of type")):
        for call in (fb.load, fb.verify):
            refused(lambda call=call, like=like: call(tmp_path / "net.few", like=like), words, UnsupportedError)
    refused(lambda: fb.load(7, like=Net()), "cannot read a file of type int", FileError)  # type: ignore[arg-type]
    refused(lambda: fb.load(b"some bytes", like=Net()), "this is not a .few file", FileError)


TEACHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "a name": (lambda: "big", "the teacher is of type str"),
    "a class": (lambda: Net, "the teacher is the class Net"),
    "lazy": (lambda: nn.LazyLinear(3), "weight has no shape yet"),
    "NaN": (lambda: changed(lambda net: net.a.weight.fill_(NAN)), "a.weight: 30 of 30"),
    "other classes": (lambda: nn.Linear(6, 7), "batch 1 .*the teacher's outputs"),
    "other inputs": (lambda: nn.Linear(7, 3), "batch 1 .*the teacher: Linear does not take"),
    "raises": (lambda: Net(raises(RuntimeError("kernel"))), "batch 1 .*the teacher: .*kernel"),
    "gives NaN": (lambda: Net(lambda out: out * NAN), "teacher's answers are NaN"),
    "gives text": (lambda: Net(lambda out: "a"), "batch 1 .*of the teacher: .*str"),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_teachers(kind: str) -> None:
    make, words = TEACHERS[kind]
    refused(lambda: fb.compress(Net(), GOOD, recipe=DISTILLED, teacher=make(), progress=None), words)


# -- recipes, tasks and other options ----------------------------------------------------------------------

ASSIGN = ECQ["assign"]
RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "bits of 1": ({"assign": ASSIGN | {"bits": 1}}, "assign.bits"),
    "bits in words": ({"assign": ASSIGN | {"bits": "four"}}, "assign.bits"),
    "negative lambda": ({"assign": ASSIGN | {"lam": -1}}, "assign.lam"),
    "lambda of NaN": ({"assign": ASSIGN | {"lam": NAN}}, "assign.lam"),
    "an unknown method": ({"assign": {"method": "ecqq"}}, "assign.method: .*did you mean 'ecq'"),
    "an unknown option": ({"assign": ASSIGN | {"options": {"zero": 1}}}, "assign.options of ecq: no 'zero'"),
    "options that are none": ({"assign": ASSIGN | {"options": 5}}, "assign.options"),
    "no assign": ({"assign": None}, "assign"),
    "negative epochs": ({"train": {"epochs": -1}}, "train.epochs"),
    "infinite epochs": ({"train": {"epochs": INF}}, "train.epochs"),
    "lr of 0": ({"train": {"lr": 0}}, "train.lr"),
    "lr of NaN": ({"train": {"lr": NAN}}, "train.lr"),
    "lr that explodes": ({"train": {"epochs": 3, "lr": 1e30}}, "head.weight|training loss"),
    "an unknown optimizer": ({"train": {"optimizer": "adamm"}}, "train.optimizer"),
    "an unknown schedule": ({"train": {"schedule": "cos"}}, "train.schedule"),
    "distill of 2": ({"train": {"distill": 2}}, "train.distill"),
    "a list for train": ({"train": [1]}, "train"),
    "no rounds": ({"rounds": 0}, "rounds"),
    "a negative seed": ({"seed": -1}, "seed"),
    "a seed of 71 bits": ({"seed": 2**70}, "seed"),
    "an unknown section": ({"asign": {}}, "'asign'; did you mean 'assign'"),
    "an unknown key": ({"train": {"epoch": 1}}, "'train.epoch'; did you mean 'epochs'"),
    "selects nothing": ({"select": {"include": ["conv*"]}}, r"'conv\*' matches no weight"),
    "selects a bias": ({"select": {"include": ["a.bias"]}}, "a.bias has fewer than two dimensions"),
    "leaves all out": ({"select": {"exclude": ["*"]}}, "exclude patterns remove every weight"),
    "sparsity of 2": ({"prune": {"sparsity": 2}}, "prune.sparsity"),
    "sparsity of NaN": ({"prune": {"sparsity": NAN}}, "prune.sparsity"),
    "an unknown pruner": ({"prune": {"method": "magic", "sparsity": 0.5}}, "prune.method: no 'magic'"),
    "a pattern the wrong way": ({"prune": {"method": "n:m", "pattern": "4:2"}}, "prune.pattern"),
    "an unknown coding": ({"coding": "zip"}, "coding"),
    "unknown floats": ({"floats": "float8"}, "floats"),
    "an unknown measure": ({"measure": {"name": "magic"}}, "measure.name"),
    "a measure that nobody reads": ({"measure": {"name": "fisher"}}, "nothing reads the scores"),
    "an old schema": ({"schema": 1}, "schema"),
    "a file elsewhere": ({"output": "../x.few"}, "output"),
    "target and lambda": ({"target": "1 KB"}, "either assign.lam or a budget"),
    "negative pilots": ({"pilots": -1}, "pilots"),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_recipes(kind: str) -> None:
    part, words = RECIPES[kind]
    refused(fit(GOOD, recipe=ECQ | part), words, RecipeError, SelectionError, NonFiniteError)


def own(**options: Any) -> fb.Task:
    return fb.Task(**options)


OPTIONS: dict[str, tuple[Callable[[], Any], str, type[FewbitsError]]] = {
    "recipe: an unknown name": (fit(GOOD, recipe="ecq-5bit"), "did you mean 'ecq-4bit'", RecipeError),
    "recipe: None": (fit(GOOD, recipe=None), "recipe is of type NoneType", RecipeError),
    "recipe: a number": (fit(GOOD, recipe=5), "recipe is of type int", RecipeError),
    "recipe: a list": (fit(GOOD, recipe=[1]), "recipe is of type list", RecipeError),
    "target: a word": (fit(GOOD, target="small"), "target: 'small' is not a size", RecipeError),
    "target: 0": (fit(GOOD, target=0), "target: a size must be positive", RecipeError),
    "target: NaN": (fit(GOOD, target=NAN), "target", RecipeError),
    "target: a list": (fit(GOOD, target=[5]), "target", RecipeError),
    "target: out of reach": (fit(GOOD, target=1), "1 bytes cannot be reached", BudgetError),
    "max_drop: without evaluate": (fit(GOOD, max_drop=1.0), "max_drop needs evaluate", RecipeError),
    "max_drop: negative": (fit(GOOD, max_drop=-1, evaluate=lambda net: 50.0), "max_drop", RecipeError),
    "max_drop: NaN": (fit(GOOD, max_drop=NAN, evaluate=lambda net: 50.0), "max_drop", RecipeError),
    "task: unknown": (fit(GOOD, task="sorting"), "no task is called 'sorting'", RecipeError),
    "task: a number": (fit(GOOD, task=5), "task", RecipeError),
    "task: an unknown option": (fit(GOOD, task={"name": "classification", "options": {"x": 1}}), "'x'", RecipeError),
    "loss: raises": (fit(GOOD, task=own(loss=raises(ValueError("own")))), "batch 1 .*loss fails .*own", DataError),
    "loss: one argument": (fit(GOOD, task=own(loss=lambda out: out.sum())), "batch 1 .*loss fails", DataError),
    "loss: text": (fit(GOOD, task=own(loss=lambda out, y: "a")), "batch 1 .*loss returned 'a'", DataError),
    "loss: a vector": (fit(GOOD, task=own(loss=lambda out, y: out)), "batch 1 .*loss returned a tensor", DataError),
    "loss: detached": (fit(GOOD, task=own(loss=lambda out, y: out.detach().sum())), "no gradient", UnsupportedError),
    "loss: NaN": (fit(GOOD, task=own(loss=lambda out, y: out.sum() * NAN)), "training loss is nan", NonFiniteError),
    "metric: raises": (
        fit(
            GOOD,
            evaluate=GOOD,
            task=own(loss=lambda out, y: out.sum(), metric=raises(ValueError("own")), scale="score"),
        ),
        "batch 1 of the validation data: .*metric fails .*own",
        DataError,
    ),
    "teacher: without distill": (fit(GOOD, teacher=Net()), "a teacher needs train.distill", RecipeError),
    "progress: a number": (fit(GOOD, progress=5), "progress is a function", RecipeError),
    "progress: a word": (fit(GOOD, progress="quiet"), "progress is a function", RecipeError),
    "state_file: a number": (fit(GOOD, state_file=5), "state_file is the path", RecipeError),
    "accelerator: a number": (fit(GOOD, accelerator=5), "accelerator is one", RecipeError),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options(kind: str) -> None:
    refused(*OPTIONS[kind])


@pytest.mark.parametrize("content", [b"junk" * 30, b""])
def test_state_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.state").write_bytes(content)
    refused(fit(GOOD, state_file=tmp_path / "a.state"), "a.state is not a checkpoint", DataError)
    refused(fit(GOOD, state_file=tmp_path), "Is a directory", FileError)
    assert (tmp_path / "a.state").read_bytes() == content


@pytest.mark.parametrize("text", [b"train: {epochs: [", b"- a\n- b\n", b"\xff\xfe\0bad"], ids=["cut", "list", "binary"])
def test_recipe_files_that_are_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    refused(fit(GOOD, recipe=tmp_path / "a.yaml"), "a.yaml", RecipeError)
    refused(fit(GOOD, recipe=tmp_path / "none.yaml"), "none.yaml", RecipeError)
    refused(fit(GOOD, recipe=tmp_path), "is a folder", RecipeError)


# -- before work is lost -----------------------------------------------------------------------------------

LONG = ECQ | {"train": {"epochs": 3, "lr": 1e-3}, "rounds": 6}


class Failing(Given):
    """Fails in its third epoch, at the second batch; sound otherwise."""

    epochs = 0

    def __iter__(self) -> Iterator[Any]:
        self.epochs += 1
        yield self.items[0]
        if self.epochs == 3:
            raise OSError("network drive")
        yield from self.items[1:]


def test_a_loader_that_fails_late_leaves_a_state_that_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    whole = fb.compress(net, GOOD, recipe=LONG, progress=None).data
    state = tmp_path / "a.state"
    refused(
        lambda: fb.compress(net, Failing(GOOD), recipe=LONG, state_file=state, progress=None),
        "the training data: its loader fails after 1 batches with OSError: network drive",
        DataError,
    )
    assert state.is_file()
    assert fb.compress(net, GOOD, recipe=LONG, state_file=state, progress=None).data == whole
    assert not state.exists()


@pytest.mark.parametrize("who", ["evaluate", "progress"])
def test_an_error_of_a_users_own_function_stays_his_own_and_the_work_is_kept(who: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, calls, error = Net(), iter(range(99)), ValueError("my own")
    at = {"evaluate": 1, "progress": 3}[who]  # evaluate looks at the float network, and at what is written

    def function(*args: Any) -> float:
        if next(calls) == at:
            raise error
        return 50.0

    state = tmp_path / "a.state"
    sound = {"evaluate": lambda net: 50.0}
    with pytest.raises(ValueError, match="my own") as caught:
        fb.compress(net, GOOD, recipe=LONG, state_file=state, **sound | {"progress": None, who: function})
    assert caught.value is error
    assert state.is_file()
    whole = fb.compress(net, GOOD, recipe=LONG, progress=None, **sound).data
    assert fb.compress(net, GOOD, recipe=LONG, state_file=state, progress=None, **sound).data == whole


def test_the_table_has_every_kind() -> None:
    """The rows of this file, each kind of them once however many places it is tried in."""
    tables = (INPUTS, TARGETS, LOADERS, LOADING, VALUES, EVALUATING, NETWORKS, TEACHERS, RECIPES, OPTIONS)
    assert sum(map(len, tables)) >= 180
    with pytest.raises(UnsupportedError):
        fb.compress(None, GOOD)  # type: ignore[arg-type]
    fb.compress(Net(), Given(GOOD), evaluate=Given(GOOD), recipe=DISTILLED, teacher=Net(), progress=None)
