"""How what was learnt is kept while further tasks are learnt: the seam, and replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from fewbits.errors import DataError, RecipeError
from fewbits.multitask._feeding import with_task
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._tasks import Tasks
from fewbits.task import Batch
from fewbits.train import Callback


class Keeping:
    """What accompanies the training of one task after the other. This base keeps nothing: plain sequential training.

    Attributes:
        state: plain data and tensors, all that is remembered; an interrupted training goes on with it.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def begin(self, net: SegmentNet, task: str, order: Sequence[str]) -> Callback | None:
        """Before a task is learnt, and when its training is taken up again: what accompanies its training.

        Args:
            order: of all tasks of the sequence; those before ``task`` have been learnt.
        """
        return None

    def penalty(self, net: SegmentNet, aim: Tasks) -> Callable[[], Tensor] | None:
        """What is added to the loss of each batch."""
        return None

    def end(self, net: SegmentNet, task: str, aim: Tasks, batches: Iterable[Any]) -> None:
        """A task has been learnt, from batches ``(x, targets)``."""

    @contextmanager
    def seen_as(self, net: SegmentNet, task: str) -> Iterator[None]:
        """Around the use of the network for a task."""
        yield


class Replay(Keeping):
    """Some samples of each task are kept, and some of those go along with every batch (experience replay).

    Each step then is of a batch of the new task and one of old samples, so it computes about twice as much; the number
    of steps stays the same. Source: Chaudhry et al., arXiv 1902.10486.

    Args:
        samples: of each task that are kept: the first of its batches.
        batch: how many of them go along with a batch. strength: the weight of their loss.

    Raises:
        RecipeError: nothing to keep, or nothing that goes along.
    """

    def __init__(self, samples: int = 100, *, batch: int = 32, strength: float = 1.0) -> None:
        super().__init__()
        if samples < 1 or batch < 1:
            raise RecipeError(f"replay keeps 1 sample of a task at least, and takes 1, got {samples} and {batch}")
        self.samples, self.batch, self.strength = samples, batch, strength

    def penalty(self, net: SegmentNet, aim: Tasks) -> Callable[[], Tensor] | None:
        if not self.state:
            return None
        places = [(name, row) for name, (_, targets) in self.state.items() for row in range(len(targets))]

        def loss() -> Tensor:
            drawn: dict[str, list[int]] = {}
            for place in torch.randint(len(places), (self.batch,)).tolist():
                name, row = places[place]
                drawn.setdefault(name, []).append(row)
            parts = []
            for name, rows in drawn.items():
                inputs, targets = self.state[name]
                batch = with_task(Batch(inputs[rows], targets[rows]), net.tasks.index(name))
                batch = send_to_device(batch, next(net.parameters()).device)
                parts.append(aim.loss(aim.forward(net, batch), batch) * (len(rows) / self.batch))
            return self.strength * torch.stack(parts).sum()

        return loss

    def end(self, net: SegmentNet, task: str, aim: Tasks, batches: Iterable[Any]) -> None:
        inputs, targets, left = [], [], self.samples
        for x, y in samples_of(task, batches):
            inputs.append(x[:left].cpu())
            targets.append(y[:left].cpu())
            left -= len(inputs[-1])
            if left <= 0:
                break
        self.state[task] = [torch.cat(inputs), torch.cat(targets)]


def samples_of(task: str, batches: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of a task, batch by batch, where each is a tensor.

    Raises:
        DataError: one is something else.
    """
    for x, y in batches:
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise DataError(f"task {task}: samples can be kept of batches of one input tensor and one of targets only")
        yield x, y
