"""How a network recovers: one training loop and its objectives."""

from fewbits.train.loop import Companion, accuracy, fit, pretrain
from fewbits.train.objectives import Objective, distillation, task

__all__ = ["Companion", "Objective", "accuracy", "distillation", "fit", "pretrain", "task"]
