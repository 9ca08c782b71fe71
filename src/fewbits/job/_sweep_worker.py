"""A process that works on a sweep."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fewbits import recipe as recipes
from fewbits.hardware import CostMaker
from fewbits.job import _job as jobs
from fewbits.job import folder as outputs
from fewbits.job._trial import Trials
from fewbits.search.sweep.queue import Queue
from fewbits.search.sweep.storage import opened
from fewbits.search.sweep.worker import work


@dataclass(frozen=True)
class Assignment:
    """Everything a worker needs to join a sweep, in plain data.

    Attributes:
        recipe: with the sweep section, as JSON. out: folder with the float network.
        storage, name: where the trials are.
        identity: see :class:`Queue`. threads: of this worker; 0 leaves them as they are.
    """

    recipe: str
    out: Path
    storage: str | None
    name: str
    identity: dict[str, str]
    threads: int = 0
    costs: Mapping[str, CostMaker] = field(default_factory=dict)

    def queue(self) -> Queue:
        """The shared trials."""
        sweep = recipes.Recipe.model_validate_json(self.recipe).sweep
        assert sweep is not None
        return Queue(opened(self.storage, self.out), self.name, sweep, self.identity)

    def trials(self) -> Trials:
        """The data and the float network, loaded."""
        recipe = recipes.Recipe.model_validate_json(self.recipe)
        job = jobs.prepare(recipe, trained=self.out / outputs.FLOAT)
        return Trials(recipe, job, self.out, self.costs)


def main(assignment: Assignment) -> None:
    """A worker process: works, and ends when the process that started it is gone. Ctrl-C is its starter's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if assignment.threads:
        torch.set_num_threads(assignment.threads)
    parent = os.getppid()
    work(assignment.queue(), assignment.trials(), leave=lambda: os.getppid() != parent)
