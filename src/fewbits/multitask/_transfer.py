"""What each task gives to the others: training without one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import DataError, RecipeError
from fewbits.multitask._names import checked


@dataclass(frozen=True, eq=False)
class Transfer:
    """Scores with all tasks, and without one at a time.

    Attributes:
        tasks: their names. whole: scores when all are trained, ``[tasks]``.
        without: ``[tasks, tasks]``: row t, column u is the score of t trained without u; NaN on the diagonal.
    """

    tasks: tuple[str, ...]
    whole: Tensor
    without: Tensor

    @property
    def matrix(self) -> Tensor:
        """What task u gives to task t: ``[t, u]``, above zero where t is better with u; zero on the diagonal."""
        return (self.whole[:, None] - self.without).fill_diagonal_(0.0)

    @property
    def mean(self) -> float:
        """The mean over all pairs of different tasks."""
        count = len(self.tasks)
        return float(self.matrix.sum() / (count * (count - 1)))

    @property
    def both_ways(self) -> Tensor:
        """The mean of what two tasks give to each other, ``[tasks, tasks]``: for :func:`sharing_predicts`."""
        return (self.matrix + self.matrix.T) / 2


def leave_one_out(train: Callable[[Sequence[str]], Mapping[str, float]], tasks: Sequence[str]) -> Transfer:
    """Train once with all tasks, and once without each.

    Args:
        train: ``train(tasks)`` trains a new network on some tasks from the same beginning, and gives the score of each:
            more is better. A task should have as many steps of its own in each training.
        tasks: two at least.

    Raises:
        RecipeError: fewer than two tasks. DataError: ``train`` gives no score of a task that it was asked for, or
            one that is no finite number.
    """
    names = checked(tasks)
    if len(names) < 2:
        raise RecipeError(f"what tasks give to each other needs two at least, got {names}")

    def scores(asked: list[str]) -> Mapping[str, float]:
        found = train(asked)
        if missing := [name for name in asked if name not in found]:
            raise DataError(f"train gave no score of task {missing[0]!r}; it was asked for {asked}")
        if odd := [name for name in asked if not math.isfinite(float(found[name]))]:
            raise DataError(f"the score of task {odd[0]!r} is {float(found[odd[0]])}; trained were {asked}")
        return found

    first = scores(names)
    whole = torch.tensor([float(first[name]) for name in names], dtype=torch.float64)
    without = torch.full((len(names), len(names)), torch.nan, dtype=torch.float64)
    for u, gone in enumerate(names):
        left = [name for name in names if name != gone]
        found = scores(left)
        for t, name in enumerate(names):
            if t != u:
                without[t, u] = float(found[name])
    return Transfer(tuple(names), whole, without)
