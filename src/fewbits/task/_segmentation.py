"""Segmentation: a class for every place of a picture."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import DataError, RecipeError
from fewbits.task._task import Task, main_output
from fewbits.task.batches import targets_of, tensors_in
from fewbits.task.classification import check_range, check_same, checked_start
from fewbits.task.metric import METRICS


class Segmentation(Task):
    """Scores ``[n, classes, ...]`` and class indices ``[n, ...]``, such as ``[n, H, W]``.

    Args:
        ignore_index: a target that is not counted; 255 in many data sets.
    """

    name = "segmentation"

    def __init__(self, ignore_index: int = -100) -> None:
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise RecipeError(f"task {self.name}: ignore_index is a whole number, got {ignore_index!r}")
        self.ignore_index, self.scale = ignore_index, METRICS["percent"]

    def answer(self, returned: Any) -> Tensor:
        """The scores."""
        return main_output(returned)

    def check(self, outputs: Tensor, batch: Any) -> None:
        """Raise DataError unless there is one class index per place, within the outputs, or one that is not counted."""
        targets = targets_of(batch)
        if outputs.dim() < 3 or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
            raise DataError(
                f"task {self.name}: the network gives outputs of shape {tuple(outputs.shape)} and the data targets of "
                f"shape {tuple(targets.shape)}; [n, classes, ...] and [n, ...] are needed"
            )
        counted = targets[targets != self.ignore_index]
        if not counted.numel():  # as a crop of a picture may be; a whole data set of them has no metric
            return
        try:
            check_range(counted, outputs.shape[1])
        except DataError as error:
            raise DataError(
                f'{error}; if that class is not to be counted: task={{"name": "{self.name}", "options": '
                f'{{"ignore_index": ...}}}}'
            ) from None

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, the mean over places that count, in nats; zero without any, where the mean would be NaN."""
        if not (batch[1] != self.ignore_index).any():
            return outputs.sum() * 0.0
        return F.cross_entropy(
            outputs, batch[1].long(), ignore_index=self.ignore_index, label_smoothing=label_smoothing
        )

    def imitation(self, outputs: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """``T**2`` times the KL divergence of softened answers, the mean over places (Hinton et al. 2015)."""
        check_same(outputs, answers)
        answer = F.log_softmax(answers / temperature, dim=1)
        own = F.log_softmax(outputs / temperature, dim=1)
        terms = F.kl_div(own, answer, reduction="none", log_target=True).sum(1)
        return terms.mean() * temperature**2

    def decisions(self, outputs: Tensor) -> Tensor | None:
        """The class of each place."""
        return outputs.argmax(1)

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Of each class the places found rightly, found, and there: ``[3, classes]``."""
        classes = outputs.shape[1]
        counted = batch[1] != self.ignore_index
        found, there = outputs.argmax(1)[counted], batch[1][counted].long()
        right = found[found == there]
        return torch.stack([torch.bincount(x, minlength=classes) for x in (right, found, there)])

    def value(self, total: Tensor) -> float:
        """Mean over the classes that are there or were found of intersection over union, in percent."""
        right, found, there = total
        union = found + there - right
        self._some(bool((union > 0).any()))
        return 100.0 * float((right[union > 0] / union[union > 0]).mean())

    def _some(self, counted: bool) -> None:
        if not counted:
            raise DataError(f"task {self.name}: every target is {self.ignore_index}, which is not counted")

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """As of classification, at every place that counts, the mean over places."""
        counted = (batch[1] != self.ignore_index).unsqueeze(1)
        index = batch[1].long().unsqueeze(1).where(counted, 0)
        values = {"score": outputs, "probability": outputs.softmax(1), "ones": torch.ones_like(outputs)}
        chosen = values[checked_start(start)].detach().gather(1, index) * counted
        places = counted.flatten(1).sum(1).clamp_min(1).reshape(-1, *[1] * (outputs.dim() - 1))
        return torch.zeros_like(outputs).scatter_(1, index, chosen / places)


class Tokens(Segmentation):
    """Scores ``[n, T, tokens]`` and token indices ``[n, T]``: language models, and a class for every token.

    Args:
        shift: whether the scores at one place are for the target of the next, as where targets are the inputs.
        ignore_index: a target that is not counted.
    """

    name = "tokens"

    def __init__(self, shift: bool = False, ignore_index: int = -100) -> None:
        super().__init__(ignore_index)
        if not isinstance(shift, bool):
            raise RecipeError(f"task tokens: shift is true or false, got {shift!r}")
        self.shift, self.scale = shift, METRICS["loss"]

    def check(self, outputs: Tensor, batch: Any) -> None:
        """Raise DataError as of segmentation, and where targets are the inputs but are not shifted."""
        if outputs.dim() != 3 or targets_of(batch).shape != outputs.shape[:2]:
            raise DataError(
                f"task tokens: the network gives outputs of shape {tuple(outputs.shape)} and the data targets of shape "
                f"{tuple(batch[1].shape)}; [n, T, tokens] and [n, T] are needed"
            )
        if not self.shift and copies(batch, self.ignore_index):
            raise DataError(
                "task tokens: the targets are the inputs themselves, so that copying is all there is to learn; if the "
                'next token is meant: task={"name": "tokens", "options": {"shift": True}}'
            )
        super().check(*self._moved(outputs, batch))

    def loss(self, outputs: Tensor, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, the mean over tokens that count, in nats."""
        return super().loss(*self._moved(outputs, batch), label_smoothing=label_smoothing)

    def imitation(self, outputs: Tensor, answers: Tensor, temperature: float) -> Tensor:
        """See :meth:`Segmentation.imitation`."""
        return super().imitation(outputs.movedim(-1, 1), answers.movedim(-1, 1), temperature)

    def decisions(self, outputs: Tensor) -> Tensor | None:
        """The likeliest token of each place."""
        return outputs.argmax(-1)

    def tally(self, outputs: Tensor, batch: Any) -> Tensor:
        """Cross-entropy, and tokens that count."""
        moved, shifted = self._moved(outputs, batch)
        count = (shifted[1] != self.ignore_index).sum()
        return torch.stack([super().loss(moved, shifted).double() * count, count.double()])

    def value(self, total: Tensor) -> float:
        """Cross-entropy per token, in nats."""
        self._some(bool(total[1]))
        return float(total[0] / total[1])

    def relevance_start(self, outputs: Tensor, batch: Any, start: str) -> Tensor:
        """As of classification, at every token that counts, the mean over tokens."""
        moved, shifted = self._moved(outputs, batch)
        found = super().relevance_start(moved, shifted, start).movedim(1, -1)
        return F.pad(found, (0, 0, 0, 1)) if self.shift else found

    def _moved(self, outputs: Tensor, batch: Any) -> tuple[Tensor, tuple[Any, Tensor]]:
        """``[n, tokens, T]`` and the batch with the targets of these places."""
        if self.shift:
            return outputs[:, :-1].movedim(-1, 1), (batch[0], batch[1][:, 1:])
        return outputs.movedim(-1, 1), (batch[0], batch[1])


def copies(batch: Any, ignore_index: int) -> bool:
    """Whether the targets that count are the inputs at the same places."""
    first, targets = next(tensors_in(batch[0]), None), batch[1]
    if first is None or first.shape != targets.shape or first.is_floating_point() or not targets.numel():
        return False
    counted = targets != ignore_index
    return bool(counted.any()) and bool((first == targets)[counted].all())
