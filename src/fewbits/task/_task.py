"""What a network's outputs are for: the seam between a training loop and the outputs it need not understand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor, nn


class Task(Protocol):
    """One batch at a time; what a batch is, only the task knows."""

    def inputs(self, batch: Any) -> Any:
        """What of a batch the network is given."""

    def check(self, outputs: Tensor, batch: Any) -> None:
        """Raise DataError unless the batch's targets fit the outputs."""

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """A scalar, to be minimised."""

    def imitation(self, outputs: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """How far outputs are from a teacher's: a scalar, on the scale of :meth:`loss`."""

    def metric(self, model: nn.Module, batches: Iterable[Any]) -> float:
        """How good a network is, in evaluation mode; higher is better."""

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """Relevance of the outputs, of their shape, from which layer-wise propagation begins."""
