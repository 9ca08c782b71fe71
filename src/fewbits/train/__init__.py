"""Training: one loop, what it minimises, how it learns, and what accompanies it.

Called, ``fewbits.train(model, data, rule=...)`` trains a network: it is :func:`fewbits.pipeline.train`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from fewbits.train._norm_statistics import FloatStatistics
from fewbits.train.alignment import Alignment
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.loop import Callback, fit
from fewbits.train.objectives import Objective, distillation, plain
from fewbits.train.pretrain import pretrain
from fewbits.train.recalibrate import match_variance, recalibrate
from fewbits.train.rules import RULES, Batch, Block, Chain, Rule, backprop, rule_of
from fewbits.train.unmerge import unmerge_statistics
from fewbits.train.whitening import Whitened, Whitening

__all__ = [
    "RULES",
    "Alignment",
    "Batch",
    "Block",
    "Callback",
    "Chain",
    "FloatStatistics",
    "KeptTraining",
    "Objective",
    "Rule",
    "Store",
    "Whitened",
    "Whitening",
    "backprop",
    "distillation",
    "fit",
    "match_variance",
    "plain",
    "pretrain",
    "recalibrate",
    "rule_of",
    "unmerge_statistics",
]


class _CallableRoom(ModuleType):
    """A room that goes by the name of a verb. The verb lives in a room above it, so it is looked up when called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("fewbits.pipeline").train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableRoom
