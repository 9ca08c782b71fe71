"""Outputs of several tasks in one batch: joined, and each task's own again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import DataError


def joined(parts: Mapping[str, Tensor], rows: Sequence[Tensor], *, fill: float = -math.inf) -> Tensor:
    """Outputs of several tasks as one tensor, its samples as they are in the batch.

    Tasks with fewer classes than others are filled up: the scores of classes that a task has not are minus infinity.

    Args:
        parts: by task, each ``[n, ...]``. rows: where each one's samples are in the batch. fill: in place of what a
            task has not.

    Raises:
        DataError: outputs of different shapes that are not ``[n, classes]``.
    """
    found = list(parts.values())
    if len({part.shape[1:] for part in found}) > 1:
        if any(part.dim() != 2 for part in found):
            shapes = {name: tuple(part.shape[1:]) for name, part in parts.items()}
            raise DataError(f"a batch mixes tasks with outputs of different shapes, {shapes}: give each task its own")
        widest = max(part.shape[1] for part in found)
        found = [F.pad(part, (0, widest - part.shape[1]), value=fill) for part in found]
    return torch.cat(found)[torch.cat(list(rows)).argsort()]


def widths(outputs: Tensor) -> Tensor:
    """How many classes each sample's task has, ``[n]``: up to the last score that is more than minus infinity."""
    held = (outputs != -math.inf).long()
    return outputs.shape[1] - held.flip(1).argmax(1)


def unfilled(outputs: Tensor) -> Tensor:
    """A task's own outputs, without what they were filled up with."""
    if outputs.dim() != 2 or not outputs.numel():
        return outputs
    return outputs[:, : int(widths(outputs).max())]
