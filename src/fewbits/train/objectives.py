"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.recipe.training import Finetuning, Recovery

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``objective(logits, targets, inputs) -> loss``, a scalar."""


def task(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy with the true classes."""

    def objective(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    return objective


def distillation(
    teacher: nn.Module, weight: float, temperature: float = 2.0, label_smoothing: float = 0.0
) -> Objective:
    """``(1 - weight)`` cross-entropy + ``weight * T**2`` KL divergence from the teacher (Hinton et al. 2015).

    Args:
        teacher: the float network; used in evaluation mode, without gradients.
        weight: 0 to 1. temperature: T, by which both sets of class scores are divided.
    """
    teacher.eval()
    plain = task(label_smoothing)

    def objective(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            answer = F.log_softmax(teacher(inputs).float() / temperature, dim=1)
        own = F.log_softmax(logits / temperature, dim=1)
        soft = F.kl_div(own, answer, reduction="batchmean", log_target=True) * temperature**2
        return (1 - weight) * plain(logits, targets, inputs) + weight * soft

    return objective


def objective_of(settings: Finetuning | Recovery, teacher: nn.Module) -> Objective:
    """What a recipe's training minimises: the task, or with ``distill`` the answers of a teacher as well."""
    if settings.distill:
        return distillation(teacher, settings.distill, settings.temperature, settings.label_smoothing)
    return task(settings.label_smoothing)
