"""How far what a rule teaches is from what backpropagation would, while it trains."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.task import Classification, Task, run
from fewbits.train.loop import Callback
from fewbits.train.objectives import Objective, plain


class Alignment(Callback):
    """Takes the angle between each weight's direction and the gradient of the loss, on the batch of the step.

    An angle below 90 degrees says that a small step along the direction lowers the loss (Lillicrap et al. 2016). Every
    measurement is a pass of a copy forth and back, so a local rule's memory is then that of backpropagation. The
    training itself is not touched. The copy draws what the network drew (dropout) where the rule runs the network once
    as a whole, as backpropagation and feedback alignment do; under other rules it draws anew. Of several processes each
    compares with the gradient of its own samples.

    Args:
        model: the network that is trained. every: steps from one measurement to the next, from the first step on.
        task: what the outputs are for; default: classification. objective: default: the task's loss.

    Attributes:
        angles: of each weight by name ``(steps done, degrees)``, 0 to 180. One without a direction, or whose gradient
            is zero, has none at that step.
    """

    def __init__(
        self, model: nn.Module, *, every: int = 1, task: Task | None = None, objective: Objective | None = None
    ) -> None:
        self.model, self.every, self.task = model, every, task or Classification()
        self.objective = objective or plain(task)
        self.angles: dict[str, list[tuple[int, float]]] = {}
        self._done = 0
        self._drawn: tuple[Any, ...] | None = None  # random states before the network ran

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around the network's own pass: the copy is to draw the same."""
        if self._drawn is None:
            self._drawn = torch.get_rng_state(), _cuda_states()
        yield

    def before_update(self, outputs: Tensor, batch: Any) -> None:
        if self._done % self.every == 0:
            truth = self._gradients(batch)
            for name, parameter in self.model.named_parameters():
                degrees = angle(parameter.grad, truth.get(name)) if parameter.dim() > 1 else None
                if degrees is not None:
                    self.angles.setdefault(name, []).append((self._done, degrees))
        self._done, self._drawn = self._done + 1, None

    def _gradients(self, batch: Any) -> dict[str, Tensor]:
        network = copy.deepcopy(self.model)
        network.zero_grad()
        with torch.random.fork_rng(), torch.enable_grad():
            if self._drawn is not None:
                torch.set_rng_state(self._drawn[0])
                torch.cuda.set_rng_state_all(self._drawn[1])
            outputs = self.task.answer(run(network, batch[0]))
            self.objective(outputs, batch).backward()
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def angle(one: Tensor | None, other: Tensor | None) -> float | None:
    """Degrees between two tensors of one shape; ``None`` if one is absent or zero."""
    if one is None or other is None:
        return None
    one, other = one.double().flatten(), other.double().flatten()
    size = float(one.norm() * other.norm())
    if not size:
        return None
    return math.degrees(math.acos(max(-1.0, min(1.0, float(one @ other) / size))))
