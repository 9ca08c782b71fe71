"""What training minimises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from fewbits.errors import DataError, NonFiniteError
from fewbits.recipe.training import Finetuning, RangeTraining, Recovery
from fewbits.task import Classification, Task, handing, run
from fewbits.task.batches import tensors_in

Objective = Callable[[Any, Any], Tensor]
"""``objective(outputs, batch) -> loss``, a scalar."""


def plain(task: Task | None = None, label_smoothing: float = 0.0) -> Objective:
    """The loss of a task; default: classification."""
    task = task or Classification()

    def objective(outputs: Any, batch: Any) -> Tensor:
        return task.loss(outputs, batch, label_smoothing=label_smoothing)

    return objective


def distillation(
    teacher: nn.Module,
    weight: float,
    temperature: float = 2.0,
    label_smoothing: float = 0.0,
    task: Task | None = None,
) -> Objective:
    """``(1 - weight)`` the task's loss + ``weight`` the distance from a teacher's answers (Hinton et al. 2015).

    Args:
        teacher: the float network; used in evaluation mode, without gradients.
        weight: 0 to 1. temperature: T, by which both sets of outputs are divided.
    """
    teacher.eval()
    task = task or Classification()

    def objective(outputs: Any, batch: Any) -> Tensor:
        with torch.no_grad():
            with handing(teacher, batch[0], "the teacher"):
                returned = run(teacher, batch[0])
            try:
                answers = convert_to_fp32(task.answer(returned))
            except DataError as error:
                raise DataError(f"of the teacher: {error}") from None
        soft = task.imitation(outputs, answers, temperature)
        if not math.isfinite(float(soft.detach())) and any(bool(x.isnan().any()) for x in tensors_in(answers)):
            raise NonFiniteError("the teacher's answers are NaN: are its weights and the batch's inputs finite?")
        return (1 - weight) * task.loss(outputs, batch, label_smoothing=label_smoothing) + weight * soft

    return objective


def objective_of(
    settings: Finetuning | Recovery | RangeTraining, teacher: nn.Module, task: Task | None = None
) -> Objective:
    """What a recipe's training minimises: the task, or with ``distill`` the answers of a teacher as well."""
    if settings.distill:
        return distillation(teacher, settings.distill, settings.temperature, settings.label_smoothing, task)
    return plain(task, settings.label_smoothing)
