"""Training: one loop, what it minimises, and what accompanies it."""

from fewbits.train._norm_statistics import FloatStatistics
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.loop import Callback, fit
from fewbits.train.objectives import Objective, distillation, plain
from fewbits.train.pretrain import pretrain
from fewbits.train.recalibrate import match_variance, recalibrate
from fewbits.train.rules import Rule, backprop

__all__ = [
    "Callback",
    "FloatStatistics",
    "KeptTraining",
    "Objective",
    "Rule",
    "Store",
    "backprop",
    "distillation",
    "fit",
    "match_variance",
    "plain",
    "pretrain",
    "recalibrate",
]
