"""Soft labels: chances of the classes in place of one class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import DataError
from fewbits.task.batches import targets_of
from fewbits.task.classification import Classification, checked_start


class SoftLabels(Classification):
    """Scores ``[n, classes]`` and chances ``[n, classes]``, which add up to 1."""

    name = "soft-labels"

    def check(self, outputs: Tensor, batch: Any) -> None:
        """Raise DataError unless there is a chance for each score, and those of a sample add up to 1."""
        targets = targets_of(batch)
        if outputs.dim() != 2 or targets.shape != outputs.shape:
            raise DataError(
                f"task {self.name}: the network gives outputs of shape {tuple(outputs.shape)} and the data targets of "
                f"shape {tuple(targets.shape)}; both have to be [samples, classes]"
            )
        sums = targets.double().sum(1)
        if len(sums) and (float(targets.min()) < 0 or float((sums - 1).abs().max()) > 1e-3):
            worst = float(sums[(sums - 1).abs().argmax()])
            raise DataError(
                f"task {self.name}: the chances of a sample are not negative and add up to 1; the data has "
                f"{float(targets.min()):g} as the lowest, and a sum of {worst:g}"
            )

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy with the chances, the mean over samples, in nats."""
        return F.cross_entropy(outputs, batch[1].to(outputs.dtype), label_smoothing=label_smoothing)

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Samples whose highest score is of the likeliest class, and samples."""
        right = (outputs.argmax(1) == batch[1].argmax(1)).sum()
        return torch.stack([right, right.new_tensor(len(outputs))])

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """As of classification, of each class by its chance."""
        chances, scores = batch[1].to(outputs.dtype), outputs.detach()
        match checked_start(start):
            case "score":
                return scores * chances
            case "probability":
                return scores.softmax(1) * chances
        return chances
