"""Scores before a training, or without one: a few batches forward and backward, nothing else moves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.measure.scorer import Scorer, TrainingStep
from fewbits.task import Task
from fewbits.task.batches import check_gradient
from fewbits.task.modes import in_evaluation
from fewbits.train.loop import batches_of, endless


def measured_on(
    model: nn.Module, scorer: Scorer, weights: Mapping[str, Tensor], train: Any, task: Task, batches: int
) -> dict[str, Tensor]:
    """The mean of a scorer's scores over the first batches, in evaluation mode.

    Args:
        model: a plain network; only its gradients are used, and cleared.
        weights: whose scores, by name: parameters of ``model``.
        train: batches of the task. batches: how many of them.
    """
    place = next(model.parameters()).device
    count = min(batches, batches_of(train))
    total: dict[str, Tensor] = {}
    with in_evaluation(model):
        for batch in islice(endless(train), count):
            batch = send_to_device(batch, place)
            with scorer.watch(), torch.enable_grad():
                outputs = task.forward(model, batch)
            task.check(outputs, batch)
            loss = task.loss(outputs, batch)
            check_gradient(model, loss)
            loss.backward(retain_graph=scorer.keeps_graph)
            gradients = {name: w.grad for name, w in weights.items() if w.grad is not None}
            found = scorer.scores(TrainingStep(outputs, batch, weights, gradients))
            for name, score in found.items():
                total[name] = total[name] + score / count if name in total else score / count
            model.zero_grad(set_to_none=True)
    return total
