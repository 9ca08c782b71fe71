"""A task of tasks: what the outputs of a network with many tasks are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import convert_to_fp32, send_to_device
from torch import Tensor, nn

from fewbits.errors import DataError
from fewbits.multitask._mixed import joined, unfilled, widths
from fewbits.multitask._names import checked
from fewbits.task import METRICS, Batch, Inputs, Task, handing, laid_out, measured_over, run, samples_in
from fewbits.task._evaluating import evaluating_in_float32
from fewbits.task.batches import called

PLACE, NAME = 1, "task"
"""Where the numbers of tasks are among the inputs: the second by place, or by this name."""


class Tasks(Task):
    """Several tasks, each with its own loss and metric; a batch says by its inputs to which task its samples belong.

    Batches are ``((x, task), targets)`` with ``task`` a tensor ``[n]`` of numbers. The loss of a batch is the mean over
    its samples of their tasks' losses, and the metric is the mean over tasks.

    Args:
        tasks: by name, in the order of their numbers; see :attr:`SegmentNet.tasks`.
    """

    name = "tasks"

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.names, self.each = checked(tasks), list(tasks.values())
        scales = {task.scale.name for task in self.each}
        self.scale = METRICS[scales.pop()] if len(scales) == 1 else METRICS["score"]

    def answer(self, returned: Any) -> Any:
        """What the first task reads: networks give outputs of one kind."""
        return self.each[0].answer(returned)

    def check(self, outputs: Any, batch: Any) -> None:
        """Each task's own check, on its samples."""
        for number, part, own in self.parts(outputs, batch):
            try:
                self.each[number].check(part, own)
            except DataError as error:
                raise DataError(f"task {self.names[number]}: {error}") from None

    def loss(self, outputs: Any, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """The mean over samples of their tasks' losses."""
        parts = list(self.parts(outputs, batch))
        losses = [self.each[number].loss(part, own, label_smoothing=label_smoothing) for number, part, own in parts]
        if len(losses) == 1:
            return losses[0]
        counts = [samples_in(own[0]) for _, _, own in parts]
        return torch.stack([loss * (n / sum(counts)) for loss, n in zip(losses, counts, strict=True)]).sum()

    def imitation(self, outputs: Any, answers: Any, temperature: float) -> Tensor:
        """That of the tasks, where all are of one kind; else mean squares."""
        kind = self._kind()
        if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape != answers.shape:
            return kind.imitation(outputs, answers, temperature)
        wide, found = widths(outputs), torch.zeros((), device=outputs.device)
        for width in wide.unique().tolist():
            own = wide == width
            part = kind.imitation(outputs[own][:, :width], answers[own][:, :width], temperature)
            found = found + part * (own.sum() / len(own))
        return found

    def decisions(self, outputs: Any) -> Tensor | None:
        """Those of the tasks, where all are of one kind."""
        return self._kind().decisions(outputs)

    def relevance_start(self, outputs: Any, batch: Any, start: str) -> Tensor:
        """Each task's own, on its samples."""
        parts = {
            self.names[number]: self.each[number].relevance_start(part, own, start)
            for number, part, own in self.parts(outputs, batch)
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        rows = [(self.numbers(batch) == number).nonzero().flatten() for number in self._numbers_in(batch)]
        return joined(parts, rows, fill=0.0)

    def tally(self, outputs: Any, batch: Any) -> Tensor:
        """``[tasks, 2]``: the metric times samples, and samples."""
        found = torch.zeros(len(self.each), 2, dtype=torch.float64)
        for number, part, own in self.parts(outputs, batch):
            task, count = self.each[number], samples_in(own[0])
            found[number] = torch.tensor(
                [self._told(number, task.value(task.tally(part, own).double())) * count, count]
            )
        return found

    def value(self, total: Tensor) -> float:
        """The mean over the tasks that have samples."""
        seen = total[total[:, 1] > 0]
        return float((seen[:, 0] / seen[:, 1]).mean())

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> float:
        """The mean over tasks of :meth:`by_task`, on ``scale``."""
        found = self.by_task(model, batches)
        told = [self._told(self.names.index(name), value) for name, value in found.items()]
        return sum(told) / len(told)

    @torch.no_grad()
    def by_task(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """The metric of every task that has samples, on its own scale.

        Raises:
            DataError: no samples, targets that do not fit the network, or a network that has its tasks in another
                order: numbers would mean other tasks.
        """
        theirs = getattr(model, "tasks", None)
        if isinstance(theirs, Sequence) and sorted(theirs) == sorted(self.names) and list(theirs) != list(self.names):
            raise DataError(f"the network's tasks are {list(theirs)}, and here {list(self.names)}: give the same order")
        totals: dict[int, Tensor] = {}
        with evaluating_in_float32(model) as place:
            data = measured_over(model, batches)
            for batch in data:
                batch = send_to_device(batch, place)
                with handing(model, batch[0], data.place):
                    outputs = convert_to_fp32(self.answer(run(model, laid_out(batch[0]))))
                with data.naming():
                    self.check(outputs, batch)
                for number, part, own in self.parts(outputs, batch):
                    tally = self.each[number].tally(part, own).double().cpu()
                    totals[number] = totals[number] + tally if number in totals else tally
        if not totals:
            raise DataError("the evaluation data is empty")
        return {self.names[number]: self.each[number].value(totals[number]) for number in sorted(totals)}

    def parts(self, outputs: Any, batch: Any) -> Iterator[tuple[int, Any, Batch]]:
        """The number of each task in a batch, with its outputs and its own batch, whose inputs are without numbers."""
        numbers = self._numbers_in(batch)
        if len(numbers) == 1:
            yield numbers[0], outputs, Batch(_without(batch[0]), batch[1])
            return
        ids, inputs = self.numbers(batch), _without(batch[0])
        if not isinstance(outputs, Tensor) or not isinstance(batch[1], Tensor) or not isinstance(inputs, Tensor):
            raise DataError(
                "a batch mixes tasks, and its inputs, outputs or targets are no single tensors: deal it out"
            )
        for number in numbers:
            rows = ids == number
            yield number, unfilled(outputs[rows.to(outputs.device)]), Batch(inputs[rows], batch[1][rows])

    def numbers(self, batch: Any) -> Tensor:
        """The task of every sample: ``[n]``.

        Raises:
            DataError: a batch without them, or numbers of no task.
        """
        found = numbers_among(batch[0])
        if len(found) and not 0 <= int(found.min()) <= int(found.max()) < len(self.each):
            raise DataError(f"tasks have the numbers 0 to {len(self.each) - 1}, got {found.unique().tolist()[:8]}")
        return found

    def _numbers_in(self, batch: Any) -> list[int]:
        return [int(number) for number in self.numbers(batch).unique()]

    def _kind(self) -> Task:
        alike = len({type(task) for task in self.each}) == 1
        return self.each[0] if alike else Task(lambda outputs, targets: outputs.sum())

    def _told(self, number: int, value: float) -> float:
        """A task's metric on the common scale."""
        scale = self.each[number].scale
        return value if scale.name == self.scale.name else scale.score(value)


def numbers_among(inputs: Any) -> Tensor:
    """The task of every sample, ``[n]``, as the inputs of a batch say it.

    Raises:
        DataError: they do not.
    """
    args, kwargs = called(inputs)
    found = kwargs.get(NAME, args[PLACE] if len(args) > PLACE else None)
    if not isinstance(found, Tensor) or found.dim() != 1 or found.is_floating_point():
        raise DataError(
            "a batch does not say of which tasks its samples are: give ((x, task), targets), one number a sample"
        )
    return found


def _without(inputs: Any) -> Any:
    """Inputs without the numbers of tasks."""
    args, kwargs = called(inputs)
    left = args[:PLACE] if NAME not in kwargs else args
    rest = {name: part for name, part in kwargs.items() if name != NAME}
    return left[0] if len(left) == 1 and not rest else Inputs((*left, *args[PLACE + 1 :]), rest)
