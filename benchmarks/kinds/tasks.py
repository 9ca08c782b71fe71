"""Many tasks in parallel: paths that are random, found or fixed, at equal steps; an interrupted training goes on."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.unit import Place, Row, Unit
from fewbits import data as datasets
from fewbits import multitask as mt
from fewbits.data import DataSet
from fewbits.recipe.training import Training
from fewbits.task import Classification
from fewbits.train import KeptTraining, Store

SPLITS = Path(__file__).parents[1] / "part_splits.json"
FIXED = {"trunk": range(99), "private-tops": (0,), "private-bottoms": range(1, 99), "one-each": ()}
"""Layers that all tasks share, of hard sharing and of a small network for each task."""


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: accuracy by task, what is shared, and whether sharing predicts similarity."""
    options = unit.options
    tasks = split(options, place, unit.seed)
    names = list(tasks)
    widths, training = options["widths"], Training(**options["training"])
    train = {name: made.loader("train", options["batch"], shuffle=True, seed=unit.seed) for name, made in tasks.items()}
    classes = {name: len(made.classes) for name, made in tasks.items()}
    shape = next(iter(tasks.values())).input_shape
    begin = time.perf_counter()
    torch.manual_seed(unit.seed)
    paths = found_paths(unit, names, train, classes, shape)
    searched = time.perf_counter() - begin
    net = network(paths, widths, classes, shape, options)
    store = Store(place.work / f"tasks-{unit.key}.state", unit.key, Accelerator())
    kept = KeptTraining(store, "tasks")
    mt.train_tasks(net, train, training, seed=unit.seed, optimizers=options["optimizers"], kept=kept)
    store.forget()
    seconds = time.perf_counter() - begin
    which = "validation" if place.validation else "test"
    aim = mt.Tasks({name: Classification() for name in names})
    by_task = aim.by_task(net, mt.all_batches({name: made.loader(which, 256) for name, made in tasks.items()}))
    shared = mt.sharing(paths)
    row = unit.labels | {
        "model": f"{len(widths)} layers of {paths.modules} segments", "data": options["data"], "split": which,
        "accuracy": sum(by_task.values()) / len(by_task), "worst": min(by_task.values()), "tasks": len(names),
        "by_task": json.dumps(by_task), "parameters": sum(p.numel() for p in net.parameters()),
        "epochs": training.epochs, "seconds": seconds, "search_seconds": searched,
        "private": sum(map(len, shared.private.values())), "shared": len(shared.shared), "unused": len(shared.unused),
    }  # fmt: skip
    pairs = shared.matrix[~torch.eye(len(names), dtype=torch.bool)]
    if len(names) >= 4 and len(pairs.unique()) > 1:
        inputs = [made.loader("validation", 16) for made in tasks.values()]
        alike = mt.similarity(net, [next(iter(loader))[0] for loader in inputs])
        told = mt.sharing_predicts(shared.matrix, alike.mean(0))
        row |= {"cka_correlation": told.correlation, "cka_p": told.p}
    return [row]


def split(options: Row, place: Place, seed: int) -> dict[str, DataSet]:
    """A data set for each task: the seed's released split of CIFAR-100, or classes of another one by twos."""
    whole = datasets.load(options["data"], place.data)
    if options["data"] == "cifar100":
        chosen = json.loads(SPLITS.read_text())["settings"]["cifar100"]["splits"][seed]["tasks"]
        labels = [task["labels"] for task in chosen]
    else:
        labels = [list(range(i, i + 2)) for i in range(0, len(whole.classes) - 1, 2)]
    return {f"task{number}": _task(whole, mt.ClassMap(own)) for number, own in enumerate(labels)}


def _task(whole: DataSet, own: mt.ClassMap) -> DataSet:
    parts = {}
    for name in ("train", "validation", "test"):
        part = whole.split(name)
        part = part.subset(own.has(part.targets).nonzero().flatten())
        parts[name] = dataclasses.replace(part, targets=own(part.targets))
    return dataclasses.replace(whole, classes=tuple(whole.classes[label] for label in own.labels), **parts)


def found_paths(unit: Unit, names: list[str], train: Any, classes: dict[str, int], shape: tuple[int, ...]) -> mt.Paths:
    """The paths of a method; what a search trains is thrown away."""
    options, method = unit.options, unit.labels["method"]
    layers, modules, per_layer = len(options["widths"]), options["modules"], options["per_layer"]
    if method in FIXED:
        return mt.branched_paths(names, layers, set(FIXED[method]) & set(range(layers)))
    if method == "affinity":
        common = mt.branched_paths(names, layers, range(layers))
        plain = options | {"norm": "shared"}
        probe = network(common, options["widths"], classes, shape, plain)
        agreement = mt.gradient_agreement(probe, train, Training(**options["search"]), seed=unit.seed)
        return mt.affinity_paths(agreement, names, modules, per_layer, seed=unit.seed)
    if method == "learnt":
        like = mt.random_paths(names, layers, modules, per_layer, seed=mt.RELEASED_SEEDS[unit.seed % 5])
        budget = sum(p.numel() for p in network(like, options["widths"], classes, shape, options).layers.parameters())
        choice = mt.PathChoice(
            lambda layer: block(layer, options["widths"], shape), names, layers, modules, per_layer,
            heads(options["widths"], classes), after=lambda layer: after(layer, layers), residual=True,
        )  # fmt: skip
        return mt.learn_paths(choice, train, Training(**options["search"]), seed=unit.seed, budget=budget)
    return mt.random_paths(names, layers, modules, per_layer, seed=mt.RELEASED_SEEDS[unit.seed % 5])


def network(
    paths: mt.Paths, widths: list[int], classes: dict[str, int], shape: tuple[int, ...], options: Row
) -> mt.SegmentNet:
    """Segments of a convolution and its normalisation; pictures are halved wherever the width grows."""
    return mt.SegmentNet(
        lambda layer: block(layer, widths, shape), paths, heads(widths, classes), merge=options["merge"],
        norm=options["norm"], residual=True, after=lambda layer: after(layer, len(widths)),
    )  # fmt: skip


def block(layer: int, widths: list[int], shape: tuple[int, ...]) -> nn.Module:
    before = shape[0] if layer == 0 else widths[layer - 1]
    stride = 2 if layer and widths[layer] > before else 1
    conv = nn.Conv2d(before, widths[layer], 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(widths[layer]))


class Pooled(nn.Module):
    """The mean over places of what is positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3))


def after(layer: int, layers: int) -> nn.Module:
    return Pooled() if layer == layers - 1 else nn.ReLU()


def heads(widths: list[int], classes: dict[str, int]) -> dict[str, nn.Module]:
    return {name: nn.Linear(widths[-1], count) for name, count in classes.items()}
