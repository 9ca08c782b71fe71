"""What goes from stage to stage, and what all stages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from accelerate import Accelerator
from torch import nn

from fewbits.codec import Base
from fewbits.pipeline._candidates import Evaluate
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._pilot import PilotChoice
from fewbits.recipe import Recipe
from fewbits.report.report import OperationRow
from fewbits.task import METRICS, Metric, Task
from fewbits.train.checkpoint import Store

Progress = Callable[[int, int, str], None]
"""``progress(steps done, steps in total, one line of text)``."""


def between_rounds(progress: Progress | None) -> Progress | None:
    """What is told of every step: a bar, whose ``every_step`` is true. A user's function hears of rounds only."""
    return progress if getattr(progress, "every_step", None) is True else None


@dataclass(frozen=True, eq=False)
class Work:
    """A compression so far.

    Attributes:
        recipe: what is asked for.
        train: batches for the task, with a length, as :class:`fewbits.task.Fed` gives them.
        task: what the network's outputs are for.
        evaluate: how good a network is on validation data, higher is better, or ``None``. metric: its scale.
        full: the float network that the user gave; everything is told against it. On the accelerator, in evaluation
            mode, as the networks below.
        model: the float network that is compressed: ``full``, or what is left of it.
        form: what trains under the plan, if that is not a copy of ``model``: its calibrated integer form.
        calibration: inputs from which ranges of activations are taken once clusters are written.
        teacher: whose answers are distilled.
        before: accuracy of ``full``, if it was evaluated.
        choice: what pilot runs chose.
        base: the file that the network is coded as differences to, or ``None``.
        operations: what was swapped, place by place.
        done: the file, its plan and its report, once there is one.
    """

    recipe: Recipe
    train: Any
    task: Task
    evaluate: Evaluate | None
    full: nn.Module
    model: nn.Module
    teacher: nn.Module
    form: nn.Module | None = None
    calibration: tuple[Any, ...] | None = None
    before: float | None = None
    choice: PilotChoice = field(default_factory=PilotChoice)
    done: Compressed | None = None
    metric: Metric = METRICS["percent"]
    base: Base | None = None
    operations: tuple[OperationRow, ...] = ()


@dataclass(frozen=True, eq=False)
class Context:
    """What all stages of a run share.

    Attributes:
        store: what an interrupted run goes on from; each stage keeps what it needs under keys of its own.
        accelerator: where to run. progress: told now and then, or ``None``.
    """

    store: Store
    accelerator: Accelerator
    progress: Progress | None = None


class Stage(Protocol):
    """One step of the way from a float network to a file. The networks it is given are not changed."""

    def run(self, work: Work, context: Context) -> Work:
        """The work with this stage's part of it done."""
