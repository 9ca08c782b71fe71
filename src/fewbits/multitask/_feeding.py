"""How the batches of several tasks take turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError, did_you_mean
from fewbits.multitask._names import checked
from fewbits.task import Batch, Inputs, fed, samples_in
from fewbits.train.loop import batches_of, begin_epoch

ORDERS = ("round-robin", "proportional", "equal", "together")


class TaskBatches:
    """Batches of several tasks, with the numbers of tasks among the inputs: ``((x, task), targets)``.

    * ``round-robin``: in every turn each task gives ``each`` batches, the order of tasks drawn anew; who has no more is
      left out, until nobody has (PaRT's released code on CIFAR, with 10).
    * ``proportional``: all batches of all tasks, in an order drawn at random.
    * ``equal``: as many batches of each task as the longest has; shorter ones begin anew.
    * ``together``: each batch joins one of every task, as many as the longest has; shorter ones begin anew.

    But for the last, a batch is of one task.

    Args:
        loaders: by task: loaders with a length, for a network of one input.
        order: one of the above. each: batches of a turn. seed: of the order, anew in each epoch.
        numbers: of the tasks; default: 0, 1, ... in the order of the loaders.

    Raises:
        RecipeError: an unknown order, or no batch in a turn. DataError: a loader without batches or length.
    """

    def __init__(
        self,
        loaders: Mapping[str, Any],
        order: str = "round-robin",
        *,
        each: int = 10,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> None:
        if order not in ORDERS:
            raise RecipeError(f"order is one of {', '.join(ORDERS)}, got {order!r}{did_you_mean(order, ORDERS)}")
        if each < 1:
            raise RecipeError(f"each, the batches of a task's turn, is at least 1, got {each}")
        self.names, self.order, self.each, self.seed, self.epoch = checked(loaders), order, each, seed, 0
        self.loaders = [fed(nn.Identity(), loader, f"the data of task {name}") for name, loader in loaders.items()]
        self.numbers = list(range(len(self.names))) if numbers is None else list(numbers)
        self.lengths = [self._length(name, loader) for name, loader in zip(self.names, self.loaders, strict=True)]

    @staticmethod
    def _length(name: str, loader: Any) -> int:
        try:
            return batches_of(loader)
        except DataError as error:
            raise DataError(f"task {name!r}: {error}") from None

    def __len__(self) -> int:
        if self.order == "together":
            return max(self.lengths)
        return len(self.lengths) * max(self.lengths) if self.order == "equal" else sum(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is next: the order of tasks, and that of their own batches, depend on it."""
        self.epoch = epoch

    def turns(self) -> list[int]:
        """The task of every batch that is taken in the epoch, before any are joined."""
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        count = len(self.lengths)
        if self.order == "proportional":
            all_of_them = torch.arange(count).repeat_interleave(torch.tensor(self.lengths))
            return [int(number) for number in all_of_them[torch.randperm(len(all_of_them), generator=draw)]]
        if self.order == "together":
            return list(range(count)) * max(self.lengths)
        left = [max(self.lengths)] * count if self.order == "equal" else list(self.lengths)
        found: list[int] = []
        while any(left):
            for number in torch.randperm(count, generator=draw).tolist():
                taken = min(self.each, left[number])
                found += [number] * taken
                left[number] -= taken
        return found

    def __iter__(self) -> Iterator[Batch]:
        streams = [self._stream(number) for number in range(len(self.loaders))]
        taken = (with_task(next(streams[number]), self.numbers[number]) for number in self.turns())
        if self.order != "together":
            yield from taken
            return
        while parts := list(islice(taken, len(streams))):
            yield _joined(parts, self.names)

    def _stream(self, number: int) -> Iterator[Batch]:
        loader, again = self.loaders[number], 0
        while True:
            begin_epoch(loader.loader, self.epoch + again)
            yield from loader
            again += 1


def _joined(parts: list[Batch], names: Sequence[str]) -> Batch:
    """Batches of several tasks as one."""
    found: list[Tensor] = []
    for what, tensors in (
        ("inputs", [part.inputs.args[0] for part in parts]),
        ("targets", [part.targets for part in parts]),
    ):
        shapes = {
            name: tuple(x.shape[1:]) if isinstance(x, Tensor) else type(x).__name__
            for name, x in zip(names, tensors, strict=True)
        }
        if len(set(shapes.values())) > 1 or not all(isinstance(x, Tensor) for x in tensors):
            raise DataError(f"batches with {what} of {shapes} cannot be joined; give tasks turns with another order")
        found.append(torch.cat(tensors))
    numbers = torch.cat([part.inputs.args[-1] for part in parts])
    return Batch(Inputs((found[0], numbers), {}), found[1])


def with_task(batch: Any, task: int) -> Batch:
    """A batch ``(inputs, targets)`` with the number of its task as last input."""
    inputs, targets = batch
    args, kwargs = (inputs.args, inputs.kwargs) if isinstance(inputs, Inputs) else ((inputs,), {})
    numbers: Tensor = torch.full((samples_in(inputs),), task)
    return Batch(Inputs((*args, numbers), kwargs), targets)


def all_batches(
    loaders: Mapping[str, Any], *, numbers: Sequence[int] | None = None, tasks: Sequence[str] | None = None
) -> list[Batch]:
    """All batches of several tasks, task by task, to evaluate on.

    Args:
        loaders, numbers: as of :class:`TaskBatches`.
        tasks: names of all tasks in the order of their numbers, such as ``net.tasks``: loaders may then be of some of
            them, in any order.

    Raises:
        RecipeError: data of no task among them.
    """
    if tasks is not None:
        for name in loaders:
            if name not in tasks:
                raise RecipeError(f"no task {name!r}{did_you_mean(name, tasks)} (there are {', '.join(tasks)})")
        numbers = [list(tasks).index(name) for name in loaders]
    found = TaskBatches(loaders, numbers=numbers)
    pairs = zip(found.numbers, found.loaders, strict=True)
    return [with_task(batch, number) for number, loader in pairs for batch in loader]
