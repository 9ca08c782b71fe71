"""Many tasks: parallel segments against other ways to share, at equal parameters and equal steps."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.task_data import tasks_of
from benchmarks.unit import Place, Row, Unit
from fewbits import multitask as mt
from fewbits.data import DataSet
from fewbits.recipe.training import Training
from fewbits.report.correlation import spearman
from fewbits.task import Classification
from fewbits.train import Store


@dataclasses.dataclass(frozen=True)
class Way:
    """A method: whose paths, and how they are trained.

    Attributes:
        paths: how segments are given to tasks; ``None``: by ``shared``, the layers that are the same for all.
        keeping: of tasks that are trained one after the other. together: whether batches are of all tasks.
        surgery: whether gradients are kept from conflicting. path_sized: whether a task has as many segments as a path.
    """

    paths: str | None = None
    shared: range = range(99)
    keeping: str | None = None
    together: bool = False
    surgery: bool = False
    path_sized: bool = False


NONE, FIRST, OTHERS = range(0), range(1), range(1, 99)
WAYS = {
    "random": Way("random"),
    "affinity": Way("affinity"),
    "learnt": Way("learnt"),
    "random search": Way("random search"),
    "evolution": Way("evolution"),
    "random, batches of all": Way("random", together=True),
    "random, in sequence": Way("random", keeping="plain"),
    "one each": Way(shared=NONE),
    "one each, batches of all": Way(shared=NONE, together=True),
    "path-sized each": Way(shared=NONE, path_sized=True),
    "trunk": Way(),
    "private tops": Way(shared=FIRST),
    "private bottoms": Way(shared=OTHERS),
    "trunk, batches of all": Way(together=True),
    "trunk, PCGrad": Way(together=True, surgery=True),
    "trunk, in sequence": Way(keeping="plain"),
    "trunk, replay": Way(keeping="replay"),
    "trunk, EWC": Way(keeping="ewc"),
    "trunk, PackNet": Way(keeping="packnet"),
}


@dataclasses.dataclass
class Setting:
    """What all methods of a seed have in common."""

    options: Row
    seed: int
    tasks: dict[str, DataSet]
    which: str

    @property
    def names(self) -> list[str]:
        return list(self.tasks)

    @property
    def classes(self) -> dict[str, int]:
        return {name: len(made.classes) for name, made in self.tasks.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.tasks.values())).input_shape

    @property
    def widths(self) -> list[int]:
        return list(self.options["widths"])

    def loaders(self, which: str, names: Sequence[str], batch: int) -> dict[str, Any]:
        shuffle = which == "train"
        return {name: self.tasks[name].loader(which, batch, shuffle=shuffle, seed=self.seed) for name in names}

    def aim(self, names: Sequence[str]) -> mt.Tasks:
        return mt.Tasks({name: Classification() for name in names})

    def training(self, share: float) -> Training:
        """A part of the epochs that every method has."""
        given = self.options["training"]
        return Training(**given | {"epochs": share * given["epochs"]})

    def random_paths(self) -> mt.Paths:
        options = self.options
        seed = mt.RELEASED_SEEDS[self.seed % 5]
        return mt.random_paths(self.names, len(self.widths), options["modules"], options["per_layer"], seed=seed)

    def network(self, paths: mt.Paths, widths: Sequence[int] | None = None, **changes: Any) -> mt.SegmentNet:
        """Segments of a convolution and its normalisation; pictures are halved wherever the width grows."""
        own = self.widths if widths is None else list(widths)
        options = {"merge": self.options["merge"], "norm": self.options["norm"]} | changes
        torch.manual_seed(self.seed)
        classes = {name: self.classes[name] for name in paths}
        net = mt.SegmentNet(
            lambda layer: self.block(layer, own), paths, heads(own, classes), residual=True,
            after=lambda layer: after(layer, len(own)), **options,
        )  # fmt: skip
        return net.to(memory_format=torch.channels_last)  # narrow convolutions take two thirds of the time

    def block(self, layer: int, widths: Sequence[int]) -> nn.Module:
        return block(layer, widths, self.shape, first=self.options.get("stride", 1))

    def parameters(self) -> int:
        """Of the network of random paths: what every method may have."""
        return size(self.network(self.random_paths()))

    def as_large(self, paths: mt.Paths) -> list[int]:
        """The widths at which a network of other paths has as many parameters, or the nearest fewer."""
        most = self.parameters()
        best = self.widths
        for factor in np.arange(0.5, 8, 0.02):
            widths = [max(1, round(factor * width)) for width in self.widths]
            if size(self.network(paths, widths)) <= most:
                best = widths
        return best


def named(data: str | list[str]) -> str:
    """A set's name, or those of several."""
    return data if isinstance(data, str) else ", ".join(Path(name).name for name in data)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: accuracy by task, what is forgotten, what is shared, and whether sharing predicts similarity."""
    options = unit.options
    made = Setting(
        options, unit.seed, tasks_of(options, place.data, unit.seed), "validation" if place.validation else "test"
    )
    way, names = WAYS[unit.labels["method"]], made.names
    begin = time.perf_counter()
    torch.manual_seed(unit.seed)
    paths, left = found_paths(way, made)
    searched = time.perf_counter() - begin
    widths = made.widths if way.paths or way.path_sized else made.as_large(paths)
    net = made.network(paths, widths)
    store = Store(place.work / f"tasks-{unit.key}.state", unit.key, Accelerator())
    over = trained(net, way, made, names, made.training(left), store)
    store.forget()
    seconds = time.perf_counter() - begin
    shared = mt.sharing(paths)
    last = over.last
    row = unit.labels | {
        "model": f"{len(widths)} layers of {paths.modules} segments", "data": named(options["data"]),
        "split": made.which,
        "accuracy": sum(last.values()) / len(last), "worst": min(last.values()), "tasks": len(names),
        "by_task": json.dumps(last), "parameters": size(net), "of_a_task": size(net.alone(names[0])),
        "widths": json.dumps(widths), "epochs": options["training"]["epochs"], "seconds": seconds,
        "search_seconds": searched, "scores": json.dumps(over.scores), "forgetting": over.forgetting,
        "backward_transfer": over.backward_transfer,
        "private": sum(map(len, shared.private.values())), "shared": len(shared.shared), "unused": len(shared.unused),
        "without_private": sum(not own for own in shared.private.values()),
    }  # fmt: skip
    if way.paths and way.keeping is None and len(names) >= 4:
        row |= looked_at(net, shared, made)
    if options.get("transfer") == unit.labels["method"]:
        row |= given_to_others(way, paths, shared, made, left)
    return [row]


def trained(
    net: mt.SegmentNet, way: Way, made: Setting, names: Sequence[str], training: Training, store: Store
) -> mt.OverTime:
    """Train a network as the method does; evaluate it as often as there are tasks, or ``points`` times in parallel."""
    options = made.options
    batch = max(1, options["batch"] // len(names)) if way.together else options["batch"]
    train, check = made.loaders("train", names, batch), made.loaders(made.which, names, 256)
    check = {name: list(loader) for name, loader in check.items()}
    aim = made.aim(net.tasks)
    if way.keeping is not None:
        keeping = mt.keeping_of(way.keeping, **options["keeping"].get(way.keeping, {}))
        return mt.train_in_sequence(net, train, training, seed=made.seed, evaluate=check, keeping=keeping, store=store)
    kept = mt.ScoredTraining(store, "tasks", aim, check, points=options.get("points", len(names)))
    more: Row = {"order": "together"} if way.together else {"optimizers": options["optimizers"]}
    rule = mt.pcgrad if way.surgery else None
    mt.train_tasks(net, train, training, seed=made.seed, kept=kept, rule=rule, **more)
    return kept.over_time


def looked_at(net: mt.SegmentNet, shared: mt.Sharing, made: Setting) -> Row:
    """Whether tasks that share more are more alike, and what segments are worth, on validation data."""
    found: Row = {}
    batches = made.loaders("validation", made.names, 16)
    pairs = shared.matrix[~torch.eye(len(made.names), dtype=torch.bool)]
    if len(pairs.unique()) > 1:
        alike = mt.similarity(net, [next(iter(loader))[0] for loader in batches.values()])
        told = mt.sharing_predicts(shared.matrix, alike.mean(0))
        found |= {"cka_correlation": told.correlation, "cka_p": told.p}
    large = made.loaders("validation", made.names, 256)
    losses = mt.attribution(net, made.aim(made.names), mt.all_batches(large))
    few = {name: list(loader)[:2] for name, loader in batches.items()}
    worth = mt.relevance_by_task(net, few)
    both = [(losses[place][name], worth[place][name]) for place in losses for name in losses[place]]
    for key, own in (("shared", True), ("private", False)):
        values = [x for place, told in losses.items() if (place in shared.shared) is own for x in told.values()]
        found[f"drop_{key}"] = sum(values) / len(values) if values else None
    a, b = (torch.tensor(part, dtype=torch.float64) for part in zip(*both, strict=True))
    return found | {"relevance_and_drop": spearman(a, b)}


def given_to_others(way: Way, paths: mt.Paths, shared: mt.Sharing, made: Setting, left: float) -> Row:
    """What tasks give to each other, each without one other, on the same paths."""

    def train(names: Sequence[str]) -> dict[str, float]:
        net = made.network(mt.Paths({name: paths[name] for name in names}))
        return trained(net, way, made, names, made.training(left), Store(None, "", Accelerator())).last

    found = mt.leave_one_out(train, made.names)
    row: Row = {"transfer": found.mean, "transfer_matrix": json.dumps(found.matrix.tolist())}
    if len(made.names) >= 4 and found.both_ways.any():
        told = mt.sharing_predicts(shared.matrix, found.both_ways)
        row |= {"transfer_correlation": told.correlation, "transfer_p": told.p}
    return row


def found_paths(way: Way, made: Setting) -> tuple[mt.Paths, float]:
    """The paths of a method, and the share of the steps that finding them left; what that trains is thrown away."""
    options, names, layers = made.options, made.names, len(made.widths)
    modules, per_layer, share = options["modules"], options["per_layer"], options["search"]
    if way.paths is None:
        wide = per_layer if way.path_sized else 1
        return mt.branched_paths(names, layers, set(way.shared) & set(range(layers)), per_layer=wide), 1.0
    if way.paths == "random":
        return made.random_paths(), 1.0
    train = made.loaders("train", names, options["batch"])
    if way.paths == "affinity":
        probe = made.network(mt.branched_paths(names, layers, range(layers)), norm="shared")
        agreement = mt.gradient_agreement(probe, train, made.training(share / 4), seed=made.seed, rounds=4)
        return mt.affinity_paths(agreement, names, modules, per_layer, seed=made.seed), 1 - share
    if way.paths == "learnt":
        budget = size(made.network(made.random_paths()).layers)
        choice = mt.PathChoice(
            lambda layer: made.block(layer, made.widths), names, layers, modules, per_layer,
            heads(made.widths, made.classes), after=lambda layer: after(layer, layers), residual=True,
        ).to(memory_format=torch.channels_last)  # fmt: skip
        return mt.learn_paths(choice, train, made.training(share), seed=made.seed, budget=budget), 1 - share

    def score(paths: mt.Paths) -> float:
        net = made.network(paths)
        mt.train_tasks(net, train, made.training(share / options["tries"]), seed=made.seed)
        return made.aim(names).evaluate(net, mt.all_batches(made.loaders("validation", names, 256)))

    how = {"random search": "random", "evolution": "evolution"}[way.paths]
    found = mt.search_paths(score, names, layers, modules, per_layer, tries=options["tries"], seed=made.seed, how=how)
    return found.best, 1 - share


def block(layer: int, widths: Sequence[int], shape: tuple[int, ...], *, first: int = 1) -> nn.Module:
    """A convolution and its normalisation. ``first`` is the stride of the first layer."""
    before = shape[0] if layer == 0 else widths[layer - 1]
    stride = first if layer == 0 else 2 if widths[layer] > before else 1
    conv = nn.Conv2d(before, widths[layer], 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(widths[layer]))


class Pooled(nn.Module):
    """The mean over places of what is positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3))


def after(layer: int, layers: int) -> nn.Module:
    return Pooled() if layer == layers - 1 else nn.ReLU()


def heads(widths: Sequence[int], classes: dict[str, int]) -> dict[str, nn.Module]:
    return {name: nn.Linear(widths[-1], count) for name, count in classes.items()}
