"""One optimizer for each task, as PaRT has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fewbits.multitask._network import SegmentNet


class TaskOptimizers(torch.optim.Optimizer):
    """An optimizer for each task, over what the task goes through; the one of the last batch's task steps.

    A segment of three tasks so has three sets of moments, and a task's moments come from its own gradients only. Where
    a batch mixes tasks, each of theirs steps with the gradient of the whole batch.

    Args:
        net: whose tasks. make: ``make(groups)``, the optimizer of one task over parameter groups.
        groups: parameter groups of a network, such as :func:`fewbits.train.loop.parameter_groups`.
    """

    def __init__(
        self,
        net: SegmentNet,
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        groups: Callable[[nn.Module], list[dict[str, Any]]],
    ) -> None:
        # not the base's own start, which allows a parameter in one group only
        self.net = net
        self.each: dict[str, torch.optim.Optimizer] = {}
        for task in net.tasks:
            own = {id(p) for p in net.parameters_of(task)}
            made = [group | {"params": [p for p in group["params"] if id(p) in own]} for group in groups(net)]
            if any(group["params"] for group in made):  # all of a task may be frozen
                self.each[task] = make(made)
        self.defaults: dict[str, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for optimizer in self.each.values() for group in optimizer.param_groups]

    @property
    def state(self) -> dict[Any, Any]:  # type: ignore[override]
        return {(task, p): s for task, optimizer in self.each.items() for p, s in optimizer.state.items()}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step those of the tasks that the network's last pass was for."""
        for task in self.net.last:
            if task in self.each:
                self.each[task].step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.net.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {task: optimizer.state_dict() for task, optimizer in self.each.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for task, optimizer in self.each.items():
            optimizer.load_state_dict(state_dict[task])
