"""How far what a rule teaches is from what backpropagation would, while it trains."""

from __future__ import annotations

import copy
import math
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
    training itself is not touched. Of several processes each compares with the gradient of its own samples.

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

    def before_update(self, outputs: Tensor, batch: Any) -> None:
        if self._done % self.every == 0:
            truth = self._gradients(batch)
            for name, parameter in self.model.named_parameters():
                degrees = angle(parameter.grad, truth.get(name)) if parameter.dim() > 1 else None
                if degrees is not None:
                    self.angles.setdefault(name, []).append((self._done, degrees))
        self._done += 1

    def _gradients(self, batch: Any) -> dict[str, Tensor]:
        network = copy.deepcopy(self.model)
        network.zero_grad()
        with torch.random.fork_rng(), torch.enable_grad():
            outputs = self.task.answer(run(network, batch[0]))
            self.objective(outputs, batch).backward()
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def angle(one: Tensor | None, other: Tensor | None) -> float | None:
    """Degrees between two tensors of one shape; ``None`` if one is absent or zero."""
    if one is None or other is None:
        return None
    one, other = one.double().flatten(), other.double().flatten()
    size = float(one.norm() * other.norm())
    if not size:
        return None
    return math.degrees(math.acos(max(-1.0, min(1.0, float(one @ other) / size))))
