"""What callbacks of other libraries share: a job that is made when training begins, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fewbits.pipeline import Compressed, Compressing, compressing
from fewbits.task import Inputs
from fewbits.task.feed import TARGETS


class CallbackJob:
    """A compression that a callback drives.

    Args:
        options: of :func:`fewbits.compressing`, but for the network and the steps. evaluate: for the end.

    Attributes:
        compressed: the result, once training is over.
    """

    def __init__(self, evaluate: Any, options: Mapping[str, Any]) -> None:
        self.options, self.evaluate = dict(options), evaluate
        self.job: Compressing | None = None
        self.compressed: Compressed | None = None

    def begin(self, model: nn.Module, steps: int) -> None:
        """Attach the plan to ``model``, which trains for so many steps of the optimizer."""
        self.job = compressing(model, steps=steps, **self.options)
        self.job.__enter__()

    def before_step(self, targets: Any = None) -> None:
        """Gradients are there. Targets are looked for among the inputs where they are not given."""
        if self.job is None:
            return
        if targets is None and isinstance(self.job.inputs, Inputs):
            targets = next((self.job.inputs.kwargs[name] for name in TARGETS if name in self.job.inputs.kwargs), None)
        self.job.after_backward(targets)

    def after_step(self, loss: Any = float("nan")) -> None:
        """The optimizer has stepped."""
        if self.job is not None and self.job.training.qat.steps < self.job.steps:
            self.job.after_step(loss)

    def end(self) -> None:
        """Training is over: the network is the compressed one from now on."""
        if self.job is not None:
            self.compressed = self.job.finish(self.evaluate)
            self.close()

    def close(self) -> None:
        """Take the plan off, where training ended in an error."""
        if self.job is not None:
            self.job.__exit__(None, None, None)
            self.job = None
