"""Training alone: a recipe's network, by the rule that it names, into a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fewbits.errors import RecipeError
from fewbits.job import folder as outputs
from fewbits.job._job import Say, keeping, skeleton, train_here
from fewbits.pipeline import Progress, check
from fewbits.pipeline.parts import assigners
from fewbits.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        file: with the weights, as ``network.weights`` takes them. rule: how they were learnt.
        accuracy: the task's metric on ``split``, in the unit of ``metric``. seconds: of the training here.
    """

    file: Path
    rule: str
    split: str
    accuracy: float
    metric: str
    seconds: float


def train(recipe: Recipe, out: Path, *, say: Say = lambda line: None, progress: Progress | None = None) -> Trained:
    """Train the network of a recipe as its section ``pretrain`` says, and write its weights into ``out``.

    It begins at ``network.weights``, if there are any. An interrupted training goes on from its state in ``out``. Of
    several processes the main one writes.

    Raises:
        RecipeError: the recipe has no section ``pretrain``. FileError: the folder cannot be written, or another job
            works in it. Else as :func:`prepare`.
    """
    if recipe.pretrain is None:
        raise RecipeError(
            "this recipe says nothing about training: add a section pretrain, such as 'pretrain: {rule: soft-hebb, "
            "epochs: 1}'"
        )
    outputs.ready(recipe, out)
    with outputs.working_in(out, recipe):
        job = keeping(skeleton(recipe), progress, out / outputs.TRAINING)
        assert job.kept is not None
        check(recipe)
        assigners(recipe, job.network)  # an option that it refuses is found before anything is trained
        begin = time.perf_counter()
        train_here(job, job.kept, say)
        seconds = time.perf_counter() - begin
        if outputs.is_main_process():
            outputs.save_float(job.network, out / outputs.FLOAT, job.dataset.normalisation, **job.words)
            job.safe()
        split = job.final_split
        found = job.shown(job.evaluate(split)(job.network))
        return Trained(out / outputs.FLOAT, recipe.pretrain.rule.name, split, found, job.task.scale.name, seconds)
