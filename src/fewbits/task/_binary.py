"""Yes or no, once per sample or once per label: one score each, positive for yes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import DataError
from fewbits.task._task import Task, main_output
from fewbits.task.batches import targets_of
from fewbits.task.classification import check_same, checked_start
from fewbits.task.metric import METRICS

_RESHAPING = tuple(
    f"{name}Backward" for name in ("Squeeze", "Unsqueeze", "View", "Reshape", "Select", "Slice", "ToCopy")
)


class Binary(Task):
    """Scores ``[n]`` or ``[n, 1]`` (or a map of them), and targets of 0 and 1 of either shape.

    Targets between 0 and 1 are chances.
    """

    name = "binary"

    def __init__(self) -> None:
        self.scale = METRICS["percent"]

    def answer(self, returned: Any) -> Tensor:
        """The scores."""
        return main_output(returned)

    def check(self, outputs: Tensor, batch: Any) -> None:
        """Raise DataError unless there is one target from 0 to 1 for each score, and scores are no chances already."""
        if _is_sigmoid(outputs):
            raise DataError(
                f"task {self.name}: the network ends in a sigmoid, and scores before it are needed (positive for yes): "
                "leave it out, or take fb.Task(loss=torch.nn.functional.binary_cross_entropy, metric=...)"
            )
        targets = targets_of(batch)
        if _squeezed(outputs).shape != _squeezed(targets).shape:
            raise DataError(
                f"task {self.name}: the network gives outputs of shape {tuple(outputs.shape)} and the data targets of "
                f"shape {tuple(targets.shape)}; {self._wanted}"
            )
        if targets.numel() and not bool(((targets >= 0) & (targets <= 1)).all()):
            raise DataError(
                f"task {self.name}: targets are 0 or 1, or between; the data has {float(targets.min()):g} to "
                f"{float(targets.max()):g}"
            )

    _wanted = "one score and one target of 0 or 1 per sample are needed"

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross-entropy with logits, the mean over scores, in nats."""
        wanted = _like(batch[1], outputs)
        if label_smoothing:
            wanted = wanted * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, wanted)

    def imitation(self, outputs: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """``T**2`` times the KL divergence of softened chances, the mean over scores (after Hinton et al. 2015)."""
        check_same(outputs, answers)
        p = torch.sigmoid(answers / temperature)
        crossed = F.binary_cross_entropy_with_logits(outputs / temperature, p)
        own = F.binary_cross_entropy_with_logits(answers / temperature, p)
        return (crossed - own) * temperature**2

    def decisions(self, outputs: Tensor) -> Tensor | None:
        """Yes or no, for each score."""
        return outputs > 0

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Right scores, and scores."""
        right = ((outputs > 0) == (_like(batch[1], outputs) > 0.5)).sum()
        return torch.stack([right, right.new_tensor(outputs.numel())])

    def value(self, total: Tensor) -> float:
        """Percent of scores on the right side."""
        return 100.0 * float(total[0]) / float(total[1])

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """What speaks for the target: the score where it is yes, its negative where it is no."""
        sign = 2 * _like(batch[1], outputs) - 1
        values = outputs.detach() * sign
        match checked_start(start):
            case "score":
                return values
            case "probability":
                return torch.sigmoid(values) * sign
        return sign


class MultiLabel(Binary):
    """Scores ``[n, labels]``, and of every label whether it is there: ``[n, labels]`` of 0 and 1."""

    name = "multi-label"
    _wanted = "a score and a target of 0 or 1 for each label are needed"

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Labels found rightly, found, and there."""
        found, there = outputs > 0, _like(batch[1], outputs) > 0.5
        return torch.stack([(found & there).sum(), found.sum(), there.sum()])

    def value(self, total: Tensor) -> float:
        """F1 over all labels, in percent."""
        return 100.0 * 2 * float(total[0]) / max(1.0, float(total[1] + total[2]))

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """As of classification, at every label that is there."""
        there = _like(batch[1], outputs)
        match checked_start(start):
            case "score":
                return outputs.detach() * there
            case "probability":
                return torch.sigmoid(outputs.detach()) * there
        return there


def _squeezed(x: Tensor) -> Tensor:
    return x.squeeze(1) if x.dim() > 1 and x.shape[1] == 1 else x


def _like(targets: Tensor, outputs: Tensor) -> Tensor:
    return targets.reshape(outputs.shape).to(outputs.dtype)


def _is_sigmoid(outputs: Tensor) -> bool:
    """Whether autograd says that outputs come from a sigmoid; where it is off, nothing does."""
    node = outputs.grad_fn
    while node is not None and node.name().startswith(_RESHAPING):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("SigmoidBackward")
