"""Training steps of large networks on a CPU, in less memory and to the same bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from fewbits.attach import recomputed
from fewbits.recipe.training import Training
from fewbits.train.optimizers import step_one
from fewbits.train.rules import Rule, backprop

LARGE = 1 << 19
"""Numbers of a network from which on memory is worth more than some microseconds for each tensor of a step."""


def plain(accelerator: Accelerator) -> bool:
    """Whether a network trains as it is: in one process, in its own precision, not compiled."""
    state = accelerator.state
    return (
        accelerator.distributed_type == DistributedType.NO
        and accelerator.mixed_precision == "no"
        and str(state.dynamo_plugin.backend).endswith("NO")
    )


class Sparing:
    """Lets a step hold neither the gradients of all weights at once, nor what plans make of them.

    A weight that needs only its own gradient is updated inside the backward pass, as soon as that is there. What holds
    it computes its value again where the backward pass needs it. Memory that was freed goes back to the system.

    On a GPU, in several processes and where gradients are clipped nothing is spared, nor with other learning rules.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        training: Training,
        accelerator: Accelerator,
        rule: Rule,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        parameters = list(model.parameters())
        self.large = (
            all(parameter.device.type == "cpu" for parameter in parameters)
            and sum(parameter.numel() for parameter in parameters) >= LARGE
        )
        self.able = (
            self.large
            and rule is backprop
            and training.clip is None
            and plain(accelerator)
            and isinstance(optimizer, torch.optim.Adam | torch.optim.SGD)
        )

    def step(self, alone: Iterable[nn.Parameter], unused: Iterable[nn.Parameter]) -> AbstractContextManager[None]:
        """Around the forward and the backward pass of a step.

        Args:
            alone: parameters of which the step needs nothing but their own gradient. unused: those that stay as they
                are.
        """
        early, dropped = {id(p) for p in alone}, {id(p): p for p in unused}
        return self._step(early, dropped) if self.able and (early or dropped) else nullcontext()

    @contextmanager
    def _step(self, early: set[int], dropped: dict[int, nn.Parameter]) -> Iterator[None]:
        actions: list[tuple[nn.Parameter, Callable[[nn.Parameter], None]]] = [(p, _drop) for p in dropped.values()]
        for group in self.optimizer.param_groups:
            take = partial(step_one, self.optimizer, group)
            actions += [(p, take) for p in group["params"] if id(p) in early and id(p) not in dropped]
        handles = [p.register_post_accumulate_grad_hook(act) for p, act in actions if p.requires_grad]
        try:
            with recomputed(self.model):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def over(self) -> None:
        """After a step, and before the first."""
        if self.large:
            trim()


def _drop(parameter: nn.Parameter) -> None:
    parameter.grad = None


def trim() -> None:
    """Give memory that was freed back to the system, where the C library does not do so by itself (glibc)."""
    release = _release()
    if release is not None:
        release(0)


@cache
def _release() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # of Windows
        return None
