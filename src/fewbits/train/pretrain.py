"""Training of a float network, the one that is compressed afterwards."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from fewbits.recipe.training import Training
from fewbits.task import Task
from fewbits.train.checkpoint import Store
from fewbits.train.kept import KeptTraining
from fewbits.train.loop import fit, optimizer_of, parameter_groups
from fewbits.train.objectives import plain


def pretrain(
    model: nn.Module,
    loader: Any,
    training: Training,
    *,
    seed: int,
    kept: KeptTraining | None = None,
    task: Task | None = None,
) -> None:
    """Train a float network from where it is, in place.

    Args:
        loader: ``(inputs, targets)`` batches with a length.
        kept: accompanies the training, keeps its state, and has what an interrupted one left.
        task: what the outputs are for; default: classification.

    Raises:
        DataError: no batches, or targets that do not fit the network. NonFiniteError: the loss is not finite.
    """
    accelerator = Accelerator()
    kept = kept or KeptTraining(Store(None, "", accelerator), "pretrain")
    set_seed(seed)
    optimizer = optimizer_of(parameter_groups(model, training), training)
    start = kept.begin(model, optimizer)
    objective = plain(task, training.label_smoothing)
    fit(model, loader, objective, optimizer, training, callback=kept, accelerator=accelerator, start=start, task=task)
