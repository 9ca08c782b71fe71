"""Regression: numbers for numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import DataError
from fewbits.task._task import Task, main_output
from fewbits.task.batches import targets_of
from fewbits.task.metric import METRICS


class Regression(Task):
    """Outputs and targets of one shape; ``[n]`` and ``[n, 1]`` count as one."""

    name = "regression"

    def __init__(self) -> None:
        self.scale, self._start = METRICS["loss"], None

    def answer(self, returned: Any) -> Tensor:
        """The numbers."""
        return main_output(returned)

    def check(self, outputs: Tensor, batch: Any) -> None:
        """Raise DataError unless there is one target for each output."""
        targets = targets_of(batch)
        same = outputs.shape == targets.shape or (
            outputs.numel() == targets.numel() == len(outputs) and {outputs.dim(), targets.dim()} == {1, 2}
        )
        if not same:
            raise DataError(
                f"task {self.name}: the network gives outputs of shape {tuple(outputs.shape)} and the data targets of "
                f"shape {tuple(targets.shape)}; they have to be equal"
            )

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean of squared errors over all outputs."""
        self._unsmoothed(label_smoothing)
        return F.mse_loss(outputs, batch[1].reshape(outputs.shape).to(outputs.dtype))

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Squared errors, and outputs."""
        errors = (outputs - batch[1].reshape(outputs.shape).to(outputs.dtype)).double().square().sum()
        return torch.stack([errors, errors.new_tensor(outputs.numel())])
