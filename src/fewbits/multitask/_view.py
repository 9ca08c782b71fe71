"""Everything that is to be seen of the tasks of a network, for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import DataError
from fewbits.multitask._feeding import all_batches
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._over_time import OverTime
from fewbits.multitask._paths import Paths
from fewbits.multitask._sharing import attribution, relevance_by_task, sharing, sharing_predicts, similarity
from fewbits.multitask._tasks import Tasks
from fewbits.multitask._transfer import Transfer
from fewbits.report import TaskTest, TaskView
from fewbits.report.words import measure_word, quality
from fewbits.task import Classification, Task


def paths_view(name: str, paths: Paths, facts: Mapping[str, Sequence[str]] | None = None) -> TaskView:
    """What paths alone say: who goes where, and who shares what.

    Args:
        name: of the network or file. facts: columns of the table of tasks: a title, and words for each task.
    """
    matrix = sharing(paths).matrix
    return TaskView(
        name, tuple(paths), paths.layers, paths.modules,
        {place: tuple(names) for place, names in paths.users().items()},
        tuple(tuple(row) for row in matrix.tolist()),
        {title: tuple(words) for title, words in (facts or {}).items()},
    )  # fmt: skip


def view(
    net: SegmentNet,
    data: Mapping[str, Iterable[Any]],
    *,
    name: str = "a network",
    tasks: Mapping[str, Task] | None = None,
    over_time: OverTime | None = None,
    transfer: Transfer | None = None,
    relevance_batches: int = 2,
) -> TaskView:
    """Look at a trained network: paths, scores, similarity, and what each segment is worth to each task.

    ``fewbits.report.write_page(path, fewbits.report.tasks_page(view(...)))`` makes the page.

    Args:
        data: batches ``(x, targets)`` of every task, not those of the training. Similarity is of the first of each.
        tasks: what each task's outputs are for; default: classification.
        over_time, transfer: what a training and :func:`leave_one_out` said, to be shown as well.
        relevance_batches: of each task, on which relevance is measured.

    Raises:
        DataError: no data of a task. Else as the measures.
    """
    if missing := [task for task in net.tasks if task not in data]:
        raise DataError(f"there is no data of task {missing[0]!r}; give batches of {', '.join(net.tasks)}")
    batches = {task: list(data[task]) for task in net.tasks}
    aim = Tasks({task: (tasks or {}).get(task, Classification()) for task in net.tasks})
    joined, paths = all_batches(batches), net.all_paths()
    scales = [task.scale.name for task in aim.each]
    scores = aim.by_task(net, joined)
    told = [quality(scores[task], scale) for task, scale in zip(net.tasks, scales, strict=True)]
    few = {task: found[:relevance_batches] for task, found in batches.items()}
    alike = similarity(net, [found[0][0] for found in batches.values()])
    unit = "points" if aim.scale.name == "percent" else aim.scale.name
    seen = paths_view(name, paths, {measure_word(aim.scale.name): told})
    more: dict[str, Any] = {
        "unit": unit,
        "similarity": _rows(alike),
        "drops": attribution(net, aim, joined),
        "relevance": relevance_by_task(net, few, tasks=tasks),
    }
    shared, tests = sharing(paths).matrix, []
    for what, matrix in (
        ("similarity (CKA), mean over layers", alike.mean(0)),
        ("what tasks give to each other", None if transfer is None else transfer.both_ways),
    ):
        if matrix is not None and _tells(shared) and _tells(matrix):
            found = sharing_predicts(shared, matrix)
            tests.append(TaskTest(what, found.correlation, found.p, found.permutations))
    more["tests"] = tuple(tests)
    if transfer is not None:
        more["transfer"] = _rows(transfer.matrix)
    if over_time is not None:
        more |= _times(over_time)
    return TaskView(**(vars(seen) | more))


def _tells(matrix: Tensor) -> bool:
    """Whether a permutation test can say anything: four tasks, pairs that differ, and no NaN."""
    pairs = matrix[torch.triu(torch.ones_like(matrix, dtype=torch.bool), 1)].double()
    return len(matrix) >= 4 and bool(pairs.isfinite().all()) and bool((pairs - pairs[0]).any())


def _times(found: OverTime) -> dict[str, Any]:
    count, said = len(found.scores), []
    if found.backward_transfer is not None:
        said.append(f"Backward transfer is {found.backward_transfer:+.2f}; below zero is forgetting.")
    said.append(f"The best score of a task at any time is {found.forgetting:.2f} above its last, in the mean.")
    names = [f"after {task}" for task in found.tasks]
    if found.learnt is None:
        names = [f"{100 * (number + 1) / count:.0f} %" for number in range(count)]
    return {
        "times": tuple(names), "scores": found.scores, "learnt": found.learnt or (), "forgetting": tuple(said),
    }  # fmt: skip


def _rows(values: Tensor) -> Any:
    return tuple(_rows(row) for row in values) if values.dim() else float(values)
