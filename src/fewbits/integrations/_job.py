"""What callbacks of other libraries share: a job that is made when training begins, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fewbits.attach.attach import plain_name
from fewbits.attach.plain import unwrapped
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
        self._naming: Any = None

    def begin(self, model: nn.Module, steps: int, saved: Mapping[str, Any] | None = None) -> None:
        """Attach the plan to ``model``, which trains for so many steps of the optimizer.

        Checkpoints of the model have its float weights under their own names from now on, so that they are loaded
        before a plan is attached, or without one.

        Args:
            saved: what :meth:`state` gave, to go on from; its steps go first.
        """
        self.job = compressing(model, steps=steps if saved is None else saved["steps"], **self.options)
        self.job.__enter__()
        if saved is not None:
            self.job.load_state_dict(saved["job"])
        self._name()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the loop's own: plain data and tensors; nothing where no job runs."""
        if self.job is None:
            return {}
        self._naming.remove()
        try:
            return {"steps": self.job.steps, "job": self.job.state_dict()}
        finally:
            self._name()

    def _name(self) -> None:
        assert self.job is not None
        self._naming = unwrapped(self.job.model).register_state_dict_post_hook(_plain_names)

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
            self._naming.remove()
            self.job.__exit__(None, None, None)
            self.job = None


def _plain_names(module: nn.Module, tensors: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """A state dict as of the plain network: background weights by their names, and nothing else of what holds them."""
    for key in [key for key in tensors if key.startswith(prefix) and ".parametrizations." in f".{key[len(prefix) :]}"]:
        tensor, name = tensors.pop(key), plain_name(key)
        if name != key:
            tensors[name] = tensor
