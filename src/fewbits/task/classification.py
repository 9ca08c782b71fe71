"""Classification: ``[n, classes]`` scores, and one class index per sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError, did_you_mean
from fewbits.task._evaluating import evaluating_in_float32
from fewbits.task._task import Task, main_output
from fewbits.task.batches import run_laid_out, samples_in, targets_of
from fewbits.task.metric import METRICS

STARTS = ("score", "probability", "ones")


class Classification(Task):
    """The task of a batch ``(inputs, class indices)``; see :class:`fewbits.task.Task`."""

    name = "classification"

    def __init__(self) -> None:
        self.scale = METRICS["percent"]

    def answer(self, returned: Any) -> Tensor:
        """The scores ``[n, classes]``."""
        return main_output(returned)

    def check(self, outputs: Tensor, batch: Any) -> None:
        """See :func:`check_targets`."""
        check_targets(outputs, targets_of(batch))

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy with the true classes, the mean over samples, in nats."""
        return F.cross_entropy(outputs, batch[1].long(), label_smoothing=label_smoothing)

    def imitation(self, outputs: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """``T**2`` times the KL divergence of softened answers, the mean over samples (Hinton et al. 2015)."""
        check_same(outputs, answers)
        answer = F.log_softmax(answers / temperature, dim=1)
        own = F.log_softmax(outputs / temperature, dim=1)
        return F.kl_div(own, answer, reduction="batchmean", log_target=True) * temperature**2

    def decisions(self, outputs: Tensor) -> Tensor | None:
        """The class of each sample."""
        return outputs.argmax(1)

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Right samples, and samples."""
        right = (outputs.argmax(1) == batch[1]).sum()
        return torch.stack([right, right.new_tensor(len(outputs))])

    def value(self, total: Tensor) -> float:
        """Percent of samples whose highest score is the target's."""
        return 100.0 * float(total[0]) / float(total[1])

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """See :func:`start_relevance`."""
        return start_relevance(outputs, batch[1], start)


def check_same(outputs: Tensor, answers: Tensor) -> None:
    """Raise DataError unless a teacher's answers have the shape of the network's own outputs."""
    if outputs.shape != answers.shape:
        raise DataError(
            f"the teacher's outputs have shape {tuple(answers.shape)}, the network's {tuple(outputs.shape)}; "
            "both need the same classes"
        )


def check_range(targets: Tensor, classes: int) -> None:
    """Raise DataError unless class indices are integers within the network's outputs."""
    if targets.is_floating_point():
        raise DataError(f"targets must be class indices, got {targets.dtype} numbers")
    if not targets.numel():
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        worst = low if low < 0 else high
        raise DataError(f"the data has class {worst}, but the network has {classes} outputs (0 is the first)")


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Raise DataError unless there is one class index, within the network's outputs, per sample."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise DataError(
            f"the network gives outputs of shape {tuple(logits.shape)} and the data targets of shape "
            f"{tuple(targets.shape)}; [samples, classes] and [samples] are needed"
        )
    check_range(targets, logits.shape[1])


def checked_start(start: str) -> str:
    """The name of a start of relevance, if it is one."""
    if start not in STARTS:
        raise RecipeError(f"start must be one of {', '.join(STARTS)}, got {start!r}{did_you_mean(start, STARTS)}")
    return start


def start_relevance(logits: Tensor, targets: Tensor, start: str = "score") -> Tensor:
    """Relevance of the network's outputs: something at the target class of each sample, zero elsewhere.

    Args:
        logits: class scores ``[n, classes]``.
        targets: class indices ``[n]``.
        start: ``"score"``, the target's own score, by which confident samples weigh more (ECQx 4.1);
            ``"probability"``, its softmax probability; ``"ones"``, all samples alike (ECQx fig. 4).
    """
    checked_start(start)
    check_targets(logits, targets)
    index = targets.reshape(-1, 1).long()
    values = {
        "score": lambda: logits,
        "probability": lambda: logits.softmax(1),
        "ones": lambda: torch.ones_like(logits),
    }
    return torch.zeros_like(logits).scatter_(1, index, values[start]().detach().gather(1, index))


@torch.no_grad()
def accuracy(model: nn.Module, loader: Iterable[Any]) -> float:
    """Percent of samples whose highest class score is the target's, in evaluation mode.

    Args:
        loader: batches ``(inputs, class indices)``.

    Raises:
        DataError: no samples, or targets that do not fit the network.
    """
    right = samples = 0
    with evaluating_in_float32(model) as place:
        for inputs, targets in loader:
            logits = main_output(run_laid_out(model, inputs.to(place)))
            check_targets(logits, targets)
            right += int((logits.argmax(1).cpu() == targets.cpu()).sum())
            samples += samples_in(inputs)
    if samples == 0:
        raise DataError("the evaluation data is empty")
    return 100.0 * right / samples
