"""Elastic weight consolidation: what mattered to earlier tasks is held in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from fewbits.errors import RecipeError
from fewbits.multitask._feeding import with_task
from fewbits.multitask._keeping import Keeping, samples_of
from fewbits.multitask._network import SegmentNet
from fewbits.multitask._tasks import Tasks
from fewbits.task.modes import in_evaluation


class EWC(Keeping):
    """Parameters are drawn to what earlier tasks found, each as strongly as it mattered to them.

    The loss gets ``strength / 2 sum_tasks sum_i F_i (w_i - w*_i)^2``, up to a constant, with the diagonal of the
    empirical Fisher information F of each task at its own end (Kirkpatrick et al., arXiv 1612.00796, eq. 3). It is
    kept as one sum of F and one mean of w*, so that it does not grow with the number of tasks.

    Args:
        strength: lambda of the paper. samples: of each task, over which squared gradients are averaged.

    Raises:
        RecipeError: a strength below zero, or no samples.
    """

    def __init__(self, strength: float = 100.0, *, samples: int = 200) -> None:
        super().__init__()
        if strength < 0 or samples < 1:
            raise RecipeError(f"EWC needs a strength of 0 or more and 1 sample at least, got {strength} and {samples}")
        self.strength, self.samples = strength, samples

    def penalty(self, net: SegmentNet, aim: Tasks) -> Callable[[], Tensor] | None:
        if not self.state:
            return None
        held = [(p, *self.state[name]) for name, p in net.named_parameters() if name in self.state]
        held = [(p, weight.to(p.device), mean.to(p.device)) for p, weight, mean in held]

        def loss() -> Tensor:
            return self.strength / 2 * torch.stack([(w * (p - mean).square()).sum() for p, w, mean in held]).sum()

        return loss

    def end(self, net: SegmentNet, task: str, aim: Tasks, batches: Iterable[Any]) -> None:
        own = {id(p) for p in net.parameters_of(task)}
        mine = {name: p for name, p in net.named_parameters() if id(p) in own and p.requires_grad}
        number = net.tasks.index(task)
        pairs = ((x[i : i + 1], y[i : i + 1]) for x, y in samples_of(task, batches) for i in range(len(y)))
        singles = (with_task(pair, number) for pair in pairs)
        for (name, p), fisher in zip(mine.items(), self._fisher(net, list(mine.values()), aim, singles), strict=True):
            before, mean = self.state.get(name, (torch.zeros_like(fisher), p.detach().cpu().clone()))
            total = before + fisher
            known = torch.where(total > 0, (before * mean + fisher * p.detach().cpu()) / total.clamp_min(1e-30), mean)
            self.state[name] = [total, known]

    def _fisher(self, net: SegmentNet, own: list[Tensor], aim: Tasks, samples: Iterable[Any]) -> list[Tensor]:
        """Mean over samples of each one's squared gradient, in evaluation mode."""
        sums, place, count = [torch.zeros_like(p) for p in own], next(net.parameters()).device, 0
        with in_evaluation(net):
            for one in islice(samples, self.samples):
                count += 1
                one = send_to_device(one, place)
                loss = aim.loss(aim.forward(net, one), one)
                found = torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True)
                for total, gradient in zip(sums, found, strict=True):
                    total += gradient.square()
        return [(total / count).cpu() for total in sums]
