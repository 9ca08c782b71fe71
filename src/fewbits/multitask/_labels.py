"""From the class labels of a data set to those of one task, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewbits.errors import DataError, RecipeError


class ClassMap:
    """A bijection from some labels of a data set to ``0, 1, ...``, in the order given.

    All labels are looked up at once. PaRT's released code replaces them one after the other in place, so that a class
    may be replaced twice and two classes become one (arXiv 2201.09534, commit 589bf4a, ``map_labels``).

    Args:
        labels: of the data set, each once.

    Raises:
        RecipeError: a label twice, none at all, or one that is negative.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels = tuple(int(label) for label in labels)
        if not self.labels or min(self.labels) < 0 or len(set(self.labels)) != len(self.labels):
            raise RecipeError(f"the classes of a task are labels from 0, each once; got {list(self.labels)}")
        self._table = torch.full((max(self.labels) + 1,), -1, dtype=torch.int64)
        self._table[list(self.labels)] = torch.arange(len(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def has(self, targets: Tensor) -> Tensor:
        """Which of the targets ``[n]`` belong to the task: bool ``[n]``."""
        inside = (targets >= 0) & (targets < len(self._table))
        return inside & (self._table[targets.long().clamp(0, len(self._table) - 1)] >= 0)

    def __call__(self, targets: Tensor) -> Tensor:
        """The task's own classes of targets ``[n]``, as int64.

        Raises:
            DataError: a target of no class of the task.
        """
        wrong = targets[~self.has(targets)]
        if len(wrong):
            raise DataError(f"class {int(wrong[0])} is none of the task's, which are {list(self.labels)}")
        return self._table[targets.long()]

    def back(self, classes: Tensor) -> Tensor:
        """The data set's labels of the task's classes ``[n]``."""
        return torch.tensor(self.labels)[classes.long()]
