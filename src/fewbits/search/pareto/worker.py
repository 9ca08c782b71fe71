"""A process that works on a sweep until every setting is settled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fewbits import job as jobs
from fewbits import outputs
from fewbits import recipe as recipes
from fewbits.errors import FewbitsError
from fewbits.hardware import CostMaker
from fewbits.search.pareto.queue import Queue
from fewbits.search.pareto.storage import opened
from fewbits.search.pareto.trial import Trials

IDLE = 0.5  # seconds between looks when nothing is waiting


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


def work(
    queue: Queue,
    trials: Trials,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    leave: Callable[[], bool] = lambda: False,
) -> None:
    """Take trials until every setting is settled.

    Args:
        progress: called after every trial, here or elsewhere, with how many are done, of how many, and a few words.
        leave: whether to stop before the next trial.
    """
    shown = -1
    while not leave():
        queue.reclaim()
        over = queue.plan()
        done = queue.finished()
        if progress is not None and len(done) != shown:
            shown = len(done)
            progress(shown, queue.total, words(done))
        if over:
            return
        trial = queue.take()
        if trial is not None:
            one(queue, trials, trial)
        else:
            time.sleep(IDLE)


def one(queue: Queue, trials: Trials, trial: Any) -> None:
    """Run one trial, and tell what came of it."""
    with queue.beating(trial):
        try:
            values, row = trials.run(trial.user_attrs["point"], trial.params)
        except FewbitsError as error:
            queue.fail(trial, str(error))
        else:
            queue.complete(trial, values, row)


def words(done: dict[int, Any]) -> str:
    """The state of a sweep in a few words."""
    failed = sum("why" in trial.user_attrs or trial.values is None for trial in done.values())
    return f"{len(done)} trials finished" + (f", {failed} of them failed" if failed else "")


def main(assignment: Assignment) -> None:
    """A worker process: works, and ends when the process that started it is gone. Ctrl-C is its starter's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if assignment.threads:
        torch.set_num_threads(assignment.threads)
    parent = os.getppid()
    work(assignment.queue(), assignment.trials(), leave=lambda: os.getppid() != parent)
