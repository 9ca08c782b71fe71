"""Classification: ``[n, classes]`` scores, and one class index per sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError, did_you_mean
from fewbits.task.batches import laid_out

STARTS = ("score", "probability", "ones")


class Classification:
    """The task of a batch ``(inputs, class indices)``; see :class:`fewbits.task.Task`."""

    def inputs(self, batch: Any) -> Tensor:
        """The inputs ``[n, ...]``."""
        found: Tensor = batch[0]
        return found

    def check(self, outputs: Tensor, batch: Any) -> None:
        """See :func:`check_targets`."""
        check_targets(outputs, batch[1])

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy with the true classes, the mean over samples, in nats."""
        return F.cross_entropy(outputs, batch[1], label_smoothing=label_smoothing)

    def imitation(self, outputs: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """``T**2`` times the KL divergence of softened answers, the mean over samples (Hinton et al. 2015)."""
        answer = F.log_softmax(answers / temperature, dim=1)
        own = F.log_softmax(outputs / temperature, dim=1)
        return F.kl_div(own, answer, reduction="batchmean", log_target=True) * temperature**2

    def metric(self, model: nn.Module, batches: Iterable[Any]) -> float:
        """See :func:`accuracy`."""
        return accuracy(model, batches)

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """See :func:`start_relevance`."""
        return start_relevance(outputs, batch[1], start)


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Raise DataError unless there is one class index, within the network's outputs, per sample."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise DataError(
            f"the network gives outputs of shape {tuple(logits.shape)} and the data targets of shape "
            f"{tuple(targets.shape)}; [samples, classes] and [samples] are needed"
        )
    if targets.is_floating_point():
        raise DataError(f"targets must be class indices, got {targets.dtype} numbers")
    if not targets.numel():
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= logits.shape[1]:
        worst = low if low < 0 else high
        raise DataError(f"the data has class {worst}, but the network has {logits.shape[1]} outputs (0 is the first)")


def start_relevance(logits: Tensor, targets: Tensor, start: str = "score") -> Tensor:
    """Relevance of the network's outputs: something at the target class of each sample, zero elsewhere.

    Args:
        logits: class scores ``[n, classes]``.
        targets: class indices ``[n]``.
        start: ``"score"``, the target's own score, by which confident samples weigh more (ECQx 4.1);
            ``"probability"``, its softmax probability; ``"ones"``, all samples alike (ECQx fig. 4).
    """
    if start not in STARTS:
        raise RecipeError(f"start must be one of {', '.join(STARTS)}, got {start!r}{did_you_mean(start, STARTS)}")
    check_targets(logits, targets)
    index = targets.reshape(-1, 1).long()
    values = {
        "score": lambda: logits,
        "probability": lambda: logits.softmax(1),
        "ones": lambda: torch.ones_like(logits),
    }
    return torch.zeros_like(logits).scatter_(1, index, values[start]().detach().gather(1, index))


@contextmanager
def float32() -> Iterator[None]:
    """Convolutions on a GPU in float32 proper; its default is TF32, with three decimal digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@torch.no_grad()
def accuracy(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Percent of samples whose highest class score is the target's, in evaluation mode.

    Raises:
        DataError: no samples, or targets that do not fit the network.
    """
    place = next(model.parameters()).device
    was_training = model.training
    model.eval()
    right = samples = 0
    try:
        with float32():
            for inputs, targets in loader:
                logits = model(laid_out(inputs.to(place)))
                check_targets(logits, targets)
                right += int((logits.argmax(1).cpu() == targets.cpu()).sum())
                samples += len(targets)
    finally:
        model.train(was_training)
    if samples == 0:
        raise DataError("the evaluation data is empty")
    return 100.0 * right / samples
