"""One training step, as the loop hands it to a learning rule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from fewbits.errors import DataError, NonFiniteError, UnsupportedError
from fewbits.recipe.training import Training
from fewbits.task import Fed, Task, handing, run, run_laid_out
from fewbits.task.batches import check_gradient, tensors_in
from fewbits.train.objectives import Objective
from fewbits.train.rules import Batch, Chain


def computing(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Layers inside multiply in ``precision``; ``"float32"`` changes nothing."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, getattr(torch, precision))


@dataclass
class Step:
    """What a batch is trained with.

    Attributes:
        model: the network. wrapped: the same for the accelerator's processes. data: where the batch comes from.
        watch: wraps each forward pass. keeps_graph: whether backward passes leave the graph.
        blocks: the network's chain of blocks. done: steps before this one.
        first: whether nothing was trained yet in this run.
        ran: whether the whole network ran.
        synchronised: whether gradients are the mean over all processes, as a backward pass leaves them.
    """

    model: nn.Module
    wrapped: nn.Module
    batch: Any
    data: Fed
    objective: Objective
    training: Training
    task: Task
    accelerator: Accelerator
    watch: Callable[[], AbstractContextManager[Any]]
    keeps_graph: bool
    blocks: Callable[..., Chain]
    done: int
    first: bool = False
    synchronised: bool = field(default=False, init=False)
    ran: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.full = self.training.precision == "float32"
        self.inputs = self.batch[0]

    def as_batch(self) -> Batch:
        """What the rule gets."""
        return Batch(
            self.forward,
            self.backward,
            self.inputs,
            self.batch[1],
            self.loss_of,
            self.blocks,
            self.computing,
            self.mean,
        )

    def forward(self) -> tuple[Any, Tensor]:
        with self._precision():
            with handing(self.model, self.inputs, self.data.place), self.watch():
                returned = (run if self.full else run_laid_out)(self.wrapped, self.inputs)
            self.ran = True
            outputs, loss = self._judged(returned)
        check_gradient(self.model, loss)
        return outputs, loss

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss, **({"retain_graph": True} if self.keeps_graph else {}))
        self.synchronised = True

    def loss_of(self, returned: Any) -> Tensor:
        with self._precision():
            return self._judged(returned)[1]

    @contextmanager
    def computing(self) -> Iterator[None]:
        with self._precision(), handing(self.model, self.inputs, self.data.place):
            yield

    def watched(self, outputs: Any) -> bool:
        """Whether the rule's own forward pass, and its graph where that is asked for, can be looked at."""
        return self.ran and (not self.keeps_graph or any(x.requires_grad for x in tensors_in(outputs)))

    def mean(self, tensor: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return tensor
        found: Tensor = self.accelerator.reduce(tensor, reduction="mean")
        return found

    @torch.no_grad()
    def synchronise(self) -> None:
        """Give every process the mean of the directions that a rule left of its own samples."""
        if self.synchronised or self.accelerator.num_processes == 1:
            return
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad = self.mean(parameter.grad.contiguous())

    def _precision(self) -> AbstractContextManager[Any]:
        return computing(self.training.precision, self.accelerator.device)

    def _judged(self, returned: Any) -> tuple[Any, Tensor]:
        """Outputs that the task reads, and their loss."""
        with self.data.naming():
            outputs = self.task.answer(returned)
            outputs = outputs if self.full else convert_to_fp32(outputs)
            self.task.check(outputs, self.batch)
            loss = self.objective(outputs, self.batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            why = _why(self.batch, self.data.place, first=self.first)
            raise NonFiniteError(f"the training loss is {value} at step {self.done}{why}")
        return outputs, loss


@contextmanager
def out_of_place(model: nn.Module) -> Iterator[None]:
    """Around a step: what the network wrote over is named. Relevance needs values that training does not."""
    try:
        yield
    except (RuntimeError, DataError) as error:
        if not re.search(r"modified by an inplace operation|being modified inplace", str(error)):
            raise
        what = re.search(r"[Oo]utput \d+ of (\w+?)(?:Backward\d*)?(?:,| is a view)", str(error))
        raise UnsupportedError(
            f"{type(model).__name__} writes in place over {f'what {what[1]} gave' if what else 'a value'}, which its "
            "gradients need: write that operation out of place (torch.relu, not torch.relu_), or train with ecq, which "
            "needs fewer of them than ecqx"
        ) from error


def _why(batch: Any, place: str, *, first: bool) -> str:
    if all(bool(x.isfinite().all()) for x in tensors_in(batch[0])):
        if first:
            return f": {place} is the first, so nothing was trained yet; look at what the network gives for it"
        return "; lower the learning rate"
    return f": {place} holds infinite inputs"
