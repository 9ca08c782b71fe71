"""Who shares what: segments that tasks have in common, and what each is worth to whom."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import DataError
from fewbits.measure.relevance import Rules, relevance
from fewbits.multitask._cka import CKA
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._paths import Paths
from fewbits.multitask._tasks import Tasks
from fewbits.task import Classification, Task
from fewbits.task.modes import in_evaluation

Place = tuple[int, int]
"""Layer and module of a segment."""


@dataclass(frozen=True, eq=False)
class Sharing:
    """What the paths of tasks have in common.

    Attributes:
        tasks: their names, in the order of the matrices.
        by_layer: how many segments two tasks share in each layer: ``[layers, tasks, tasks]``; a task's own on the
            diagonal.
        private: ``{task: segments}`` that no other task goes through. shared: ``{segment: tasks}`` of several.
        unused: segments of no task.
    """

    tasks: tuple[str, ...]
    by_layer: Tensor
    private: dict[str, list[Place]]
    shared: dict[Place, list[str]]
    unused: list[Place]

    @property
    def matrix(self) -> Tensor:
        """How many segments two tasks share in all: ``[tasks, tasks]``."""
        return self.by_layer.sum(0)


def sharing(paths: Paths) -> Sharing:
    """Who shares what, by the paths alone."""
    stacked = torch.stack([path.long() for path in paths.values()])
    users = paths.users()
    everything = [(layer, module) for layer in range(paths.layers) for module in range(paths.modules)]
    return Sharing(
        tuple(paths),
        torch.einsum("tlm,ulm->ltu", stacked, stacked),
        {name: [place for place, names in users.items() if names == [name]] for name in paths},
        {place: names for place, names in users.items() if len(names) > 1},
        [place for place in everything if place not in users],
    )


@torch.no_grad()
def similarity(net: SegmentNet, inputs: Iterable[Tensor], *, unbiased: bool = True) -> Tensor:
    """CKA between what two tasks make of the same samples, layer by layer: ``[layers, tasks, tasks]``.

    Args:
        inputs: batches of inputs, of any tasks. unbiased: see :class:`CKA`.

    Raises:
        DataError: no batches, or one with too few samples.
    """
    names, layers = net.tasks, len(net.layers)
    pairs = [(t, u) for t in range(len(names)) for u in range(t + 1)]
    sums = {(layer, *pair): CKA(unbiased=unbiased) for layer in range(layers) for pair in pairs}
    with in_evaluation(net):
        for x in inputs:
            outputs = [net.layer_outputs(x, name) for name in names]
            for (layer, t, u), found in sums.items():
                found.add(outputs[t][layer], outputs[u][layer])
    result = torch.zeros(layers, len(names), len(names))
    for (layer, t, u), found in sums.items():
        result[layer, t, u] = result[layer, u, t] = found.value()
    if all(not found.sums.any() for found in sums.values()):
        raise DataError("there are no samples to compare representations on, or all of them are alike")
    return result


def attribution(net: SegmentNet, tasks: Tasks, batches: Iterable[Any]) -> dict[Place, dict[str, float]]:
    """What each task loses in scores of its metric where one segment gives zeros: ``{segment: {task: loss}}``.

    Only tasks whose path has the segment are asked; no other one loses anything.

    Args:
        batches: ``((x, task), targets)`` of all tasks, read anew for each segment.
    """
    data = list(batches)
    scales = dict(zip(tasks.names, tasks.each, strict=True))
    before = tasks.by_task(net, data)
    found: dict[Place, dict[str, float]] = {}
    for place, names in net.all_paths().users().items():
        own = [batch for batch in data if any(tasks.names[n] in names for n in tasks.numbers(batch).unique().tolist())]
        if not own:
            continue
        with _silent(net, place):
            after = tasks.by_task(net, own)
        found[place] = {
            name: scales[name].scale.score(before[name]) - scales[name].scale.score(after[name])
            for name in names
            if name in after
        }
    return found


@contextmanager
def _silent(net: SegmentNet, place: Place) -> Any:
    handle = net.segment(*place).register_forward_hook(lambda module, given, output: torch.zeros_like(output))
    try:
        yield
    finally:
        handle.remove()


def relevance_by_task(
    net: SegmentNet,
    loaders: Mapping[str, Iterable[Any]],
    *,
    rules: Rules | str = "plus",
    tasks: Mapping[str, Task] | None = None,
) -> dict[Place, dict[str, float]]:
    """The share of a layer's relevance that each segment of a task's path has: ``{segment: {task: share}}``.

    Shares are of the sums of absolute relevance of weights; those of a task's segments in a layer sum to 1.

    Args:
        loaders: batches ``(x, targets)`` by task. rules: of relevance. tasks: default: classification.

    Raises:
        As :func:`fewbits.measure.relevance.relevance`.
    """
    found: dict[Place, dict[str, float]] = {}
    for name, batches in loaders.items():
        aim = (tasks or {}).get(name, Classification())
        weights = relevance(net.alone(name), batches, rules=rules, task=aim).weights
        sums: dict[Place, float] = {}
        for tensor, values in weights.items():
            room, *rest = tensor.split(".")
            if room == "layers":
                place = (int(rest[0]), int(rest[1]))
                sums[place] = sums.get(place, 0.0) + float(values.abs().sum())
        for place, total in sums.items():
            layer = sum(other for (row, _), other in sums.items() if row == place[0])
            found.setdefault(place, {})[name] = total / layer if layer else 0.0
    return found


@dataclass(frozen=True)
class Permuted:
    """A permutation test.

    Attributes:
        correlation: of the two matrices, over pairs of tasks (Pearson). p: share of the permutations, the given order
            among them, with a correlation at least as large. permutations: how many, with the given order.
    """

    correlation: float
    p: float
    permutations: int


def sharing_predicts(shared: Tensor, alike: Tensor, *, permutations: int = 9999, seed: int = 0) -> Permuted:
    """Whether tasks that share more are more alike than chance would have it (Mantel 1967, one-sided).

    The tasks of one matrix are permuted, rows and columns together: pairs of tasks are not independent of each other.

    Args:
        shared, alike: symmetric matrices ``[tasks, tasks]``; their diagonals are not read.
        permutations: drawn at random, or all, where there are no more.

    Raises:
        DataError: matrices of different sizes, fewer than four tasks, or one that is the same for all pairs.
    """
    count = len(shared)
    if shared.shape != alike.shape or shared.shape != (count, count) or count < 4:
        raise DataError(
            f"two matrices of the same four or more tasks, got {list(shared.shape)} and {list(alike.shape)}"
        )
    upper = np.triu_indices(count, 1)
    first, second = shared.double().numpy(), alike.double().numpy()
    fixed = first[upper] - first[upper].mean()
    other = second[upper] - second[upper].mean()
    if not np.isfinite(fixed).all() or not np.isfinite(other).all() or not fixed.any() or not other.any():
        raise DataError("nothing can be said where all pairs of tasks share, or are, alike, or a number is not finite")

    def correlation(order: Any) -> float:
        values = second[np.ix_(order, order)][upper]
        return float(fixed @ (values - values.mean()) / (np.linalg.norm(fixed) * np.linalg.norm(other)))

    given = correlation(np.arange(count))
    draw = np.random.default_rng(seed)
    if math.factorial(count) <= permutations + 1:
        orders = [np.array(order) for order in itertools.permutations(range(count))]
    else:
        orders = [np.arange(count), *(draw.permutation(count) for _ in range(permutations))]
    reached = sum(correlation(order) >= given - 1e-12 for order in orders)
    return Permuted(given, reached / len(orders), len(orders))
