"""Paths by affinity: tasks whose gradients agree share segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import RecipeError
from fewbits.multitask._feeding import TaskBatches
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._paths import Paths
from fewbits.multitask._tasks import Tasks
from fewbits.multitask._training import train_tasks
from fewbits.recipe.training import Training
from fewbits.task import Classification, Task


def gradient_agreement(
    net: SegmentNet,
    loaders: Mapping[str, Any],
    training: Training,
    *,
    seed: int,
    rounds: int = 4,
    batches: int = 4,
    tasks: Mapping[str, Task] | None = None,
) -> Tensor:
    """Cosines between the gradients of tasks, layer by layer: ``[layers, tasks, tasks]``, the mean over a short run.

    Args:
        net: all of whose tasks go through the same segments, without normalisation per task; it is trained in place.
        loaders, training, seed, tasks: as of :func:`train_tasks`; ``training`` is one of ``rounds`` parts.
        rounds: how often gradients are taken, each time after a part of the training.
        batches: of each task, over which its gradient is the mean.

    Raises:
        RecipeError: the tasks do not share all segments.
    """
    names = list(loaders)
    if any(not torch.equal(net.path(name), net.path(names[0])) for name in names) or net.norm == "task":
        raise RecipeError("gradients are compared on what tasks share: give branched_paths(..., shared=range(layers))")
    aim = Tasks({name: (tasks or {}).get(name, Classification()) for name in net.tasks})
    numbers = [net.tasks.index(name) for name in names]
    total = torch.zeros(len(net.layers), len(names), len(names))
    for part in range(rounds):
        train_tasks(net, loaders, training, seed=seed + part, tasks=tasks)
        net.eval()
        rows = []
        for name, number in zip(names, numbers, strict=True):
            data = TaskBatches({name: loaders[name]}, seed=seed + part, numbers=[number])
            rows.append(_gradient(net, aim, list(islice(data, batches))))
        total += torch.stack([_cosines([row[layer] for row in rows]) for layer in range(len(net.layers))])
    return total / rounds


def _gradient(net: SegmentNet, aim: Tasks, batches: Sequence[Any]) -> list[Tensor]:
    """The mean gradient over batches of one task, of each layer in one vector."""
    net.zero_grad()
    for batch in batches:
        (aim.loss(aim.forward(net, batch), batch) / len(batches)).backward()
    found = [_joined([p.grad for p in layer.parameters() if p.grad is not None]) for layer in net.layers]
    net.zero_grad()
    return found


def _joined(gradients: list[Tensor]) -> Tensor:
    """In one vector; a layer that trains nothing has one number, zero, and so agrees with nothing."""
    return torch.cat([g.flatten() for g in gradients]).cpu() if gradients else torch.zeros(1)


def _cosines(rows: Sequence[Tensor]) -> Tensor:
    unit = torch.nn.functional.normalize(torch.stack(list(rows)).double(), dim=1)
    return (unit @ unit.T).float()


def affinity_paths(agreement: Tensor, names: Sequence[str], modules: int, per_layer: int, *, seed: int = 0) -> Paths:
    """Paths on which tasks share as many segments as they agree, at the number of segments of random ones.

    In each layer segments are equally full, to within one task. Tasks then change places, two at a time, as long as the
    sum of agreements over all pairs that share a segment grows; the best of some such searches is kept.

    Args:
        agreement: ``[layers, tasks, tasks]``, or ``[tasks, tasks]`` for one layer after the other.
        modules, per_layer: segments of a layer, and of a path in it. seed: of where the searches begin.

    Raises:
        RecipeError: more segments in a path's layer than there are, or a matrix of another size than the tasks.
    """
    matrices = agreement.double().numpy()
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    if not 1 <= per_layer <= modules:
        raise RecipeError(f"a path has 1 to {modules} segments in a layer of {modules}, got {per_layer}")
    if not np.isfinite(matrices).all():
        raise RecipeError("agreement has NaN or infinite numbers (a task whose outputs are constant has no similarity)")
    if matrices.shape[1:] != (len(names), len(names)):
        raise RecipeError(f"agreement is of {list(matrices.shape[1:])} tasks, and there are {len(names)}")
    draw = np.random.default_rng(seed)
    found = np.stack([_shared_out(matrix, modules, per_layer, draw) for matrix in matrices], axis=1)
    return Paths(dict(zip(names, found, strict=True)))


def _shared_out(matrix: Any, modules: int, per_layer: int, draw: np.random.Generator, tries: int = 8) -> Any:
    """The best assignment bool ``[tasks, modules]`` of some searches from random ones."""
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 0.0)
    best, worth = None, -np.inf
    for _ in range(tries):
        found = _climbed(_even(len(matrix), modules, per_layer, draw), matrix)
        value = _worth(found, matrix)
        if value > worth + 1e-12:
            best, worth = found, value
    return best


def _even(tasks: int, modules: int, per_layer: int, draw: np.random.Generator) -> Any:
    """Every task in ``per_layer`` segments, the least full first."""
    found = np.zeros((tasks, modules), bool)
    for task in draw.permutation(tasks):
        order = np.lexsort((draw.random(modules), found.sum(0)))
        found[task, order[:per_layer]] = True
    return found


def _worth(found: Any, matrix: Any) -> float:
    together = found.astype(float) @ found.T.astype(float)
    return float((together * matrix).sum()) / 2


def _climbed(found: Any, matrix: Any) -> Any:
    """Pairs of tasks change places while it pays."""
    modules = found.shape[1]
    moved = True
    while moved:
        moved = False
        for a in range(modules):
            for b in range(a):
                change = _best_swap(found, matrix, a, b)
                if change is not None:
                    task, other = change
                    found[task, a] = found[other, b] = False
                    found[task, b] = found[other, a] = True
                    moved = True
    return found


def _best_swap(found: Any, matrix: Any, a: int, b: int) -> tuple[int, int] | None:
    """The task of segment a and that of b whose change of places gains most, if any gains."""
    here, there = np.flatnonzero(found[:, a] & ~found[:, b]), np.flatnonzero(found[:, b] & ~found[:, a])
    if not len(here) or not len(there):
        return None
    to_a, to_b = matrix @ found[:, a], matrix @ found[:, b]
    leave = to_b[here] - to_a[here]
    come = to_a[there] - to_b[there]
    gain = leave[:, None] + come[None, :] - 2 * matrix[np.ix_(here, there)]
    best = np.unravel_index(int(gain.argmax()), gain.shape)
    return (int(here[best[0]]), int(there[best[1]])) if gain[best] > 1e-9 else None
