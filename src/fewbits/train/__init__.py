"""How a network recovers: one training loop and its objectives."""

from fewbits.train.loop import Callback, accuracy, fit
from fewbits.train.objectives import Objective, distillation, task
from fewbits.train.pretrain import pretrain
from fewbits.train.recalibrate import match_variance, recalibrate

__all__ = [
    "Callback",
    "Objective",
    "accuracy",
    "distillation",
    "fit",
    "match_variance",
    "pretrain",
    "recalibrate",
    "task",
]
