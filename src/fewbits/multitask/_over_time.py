"""What each task scores while others are learnt: the matrix over time, and what it says of forgetting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fewbits.errors import DataError
from fewbits.multitask._feeding import all_batches
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._tasks import Tasks
from fewbits.train import KeptTraining, Store


@dataclass(frozen=True)
class OverTime:
    """Scores of all tasks at some times of a training.

    Attributes:
        tasks: their names, in the order of the columns.
        scores: a row for each time, with a score for each task: percent of a classification, more is better.
        learnt: the row after which each task had been learnt; ``None`` where all are learnt at once.
    """

    tasks: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    learnt: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.scores or any(len(row) != len(self.tasks) for row in self.scores):
            raise DataError(f"there is one row of scores at least, each with one for each of {len(self.tasks)} tasks")

    @property
    def last(self) -> dict[str, float]:
        """The scores at the end, by task."""
        return dict(zip(self.tasks, self.scores[-1], strict=True))

    @property
    def backward_transfer(self) -> float | None:
        """How much learning the later tasks changed the earlier ones: below zero is forgetting.

        The mean over all tasks but the last one learnt of the score at the end less that when the task had been learnt
        (Lopez-Paz and Ranzato, arXiv 1706.08840, section 2). ``None`` for one task, or tasks that are learnt at once.
        """
        if self.learnt is None:
            return None
        end = len(self.scores) - 1
        changes = [self.scores[end][i] - self.scores[row][i] for i, row in enumerate(self.learnt) if row < end]
        return sum(changes) / len(changes) if changes else None

    @property
    def forgetting(self) -> float:
        """The mean over tasks of the best score at any time less that at the end (Chaudhry et al., arXiv 1801.10112).

        It is zero or more; also where tasks are learnt at once. That the best of several scores is taken makes it
        larger than zero by their noise alone.
        """
        columns = list(zip(*self.scores, strict=True))
        return sum(max(column) - column[-1] for column in columns) / len(columns)


def scores_of(
    net: SegmentNet,
    aim: Tasks,
    data: Mapping[str, Iterable[Any]],
    seen_as: Any = None,
) -> tuple[float, ...]:
    """The score of every task, in the order of ``data``; random numbers of a training stay what they were.

    Args:
        data: batches ``(x, targets)`` by task. seen_as: ``seen_as(net, task)``, around the evaluation of a task.
    """
    found = []
    with torch.random.fork_rng():
        for name, batches in data.items():
            number = net.tasks.index(name)
            view: AbstractContextManager[Any] = nullcontext() if seen_as is None else seen_as(net, name)
            with view:
                told = aim.by_task(net, all_batches({name: batches}, numbers=[number]))
            found.append(aim.each[number].scale.score(told[name]))
    return tuple(found)


class ScoredTraining(KeptTraining):
    """A training that is kept, and in which all tasks are evaluated now and then.

    Args:
        store, key: as of :class:`~fewbits.train.KeptTraining`.
        aim: the task of tasks. data: batches ``(x, targets)`` by task, to evaluate on.
        points: how often, evenly spread; the last time is the end.
    """

    def __init__(
        self, store: Store, key: str, aim: Tasks, data: Mapping[str, Iterable[Any]], *, points: int = 5, times: int = 20
    ) -> None:
        super().__init__(store, key, times=times)
        self.aim, self.data, self.points = aim, data, points

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        self.notes = {"rows": []} if self.saved is None else self.saved["notes"]
        return super().begin(model, optimizer)

    def after_update(self, done: int, total: int, loss: float) -> None:
        if done * self.points // total > (done - 1) * self.points // total:
            assert isinstance(self.model, SegmentNet)
            self.notes["rows"].append(list(scores_of(self.model, self.aim, self.data)))
        super().after_update(done, total, loss)

    @property
    def over_time(self) -> OverTime:
        """What was found so far."""
        return OverTime(tuple(self.data), tuple(tuple(row) for row in self.notes["rows"]))
