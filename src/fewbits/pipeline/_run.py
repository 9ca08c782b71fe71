"""The main job: a float network in, stage by stage, a small file that decodes out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fewbits import recipe as recipes
from fewbits.pipeline._candidates import Evaluate
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline.check import check_call
from fewbits.pipeline.methods import integer_form_of
from fewbits.pipeline.stages._calibrate import Calibrate
from fewbits.pipeline.stages._hold import Hold
from fewbits.pipeline.stages._pilots import Pilots
from fewbits.pipeline.stages._work import Context, Progress, Stage, Work
from fewbits.pipeline.stages.channels import RemoveChannels
from fewbits.recipe import Activations, Recipe
from fewbits.task import Classification
from fewbits.train.checkpoint import Store
from fewbits.weights import select


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe asks for, in order."""
    stages: list[Stage] = [RemoveChannels()] if recipe.channels is not None else []
    stages.append(Pilots(_again))
    if integer_form_of(recipe):
        stages.append(Calibrate((recipe.activations or Activations()).calibrate))
    return [*stages, Hold()]


def compress(
    model: nn.Module,
    train: Any,
    *,
    evaluate: Evaluate | None = None,
    recipe: Recipe | str | Path = "ecqx-4bit",
    target: str | int | None = None,
    max_drop: float | None = None,
    teacher: nn.Module | None = None,
    state_file: str | Path | None = None,
    keep_state: bool = False,
    progress: Progress | None = None,
    accelerator: Accelerator | None = None,
) -> Compressed:
    """Make a trained classifier as small as a budget asks for. The model given is not changed.

    Args:
        model: a float network: one input tensor, ``[n, classes]`` scores.
        train: batches of ``(inputs, class indices)`` with a length: a ``DataLoader`` or a list.
        evaluate: accuracy in percent of a network, on validation data. Needed for ``max_drop``, and for the
            accuracies in the report.
        recipe: a :class:`~fewbits.recipe.Recipe`, a YAML file, or the name of one that comes with fewbits.
        target: bytes of the file, for example ``"200 KB"``; overrides the recipe's.
        max_drop: points of accuracy that may be lost; overrides the recipe's.
        teacher: a network whose answers are distilled (``train.distill``), with the same inputs and classes;
            default: the float network itself. An interrupted run must be given the same one.
        state_file: where the state is kept at every round. If the file exists, the run goes on from there (this
            needs a ``train`` whose order is reproducible, as fewbits' own loaders are). Removed at the end.
        keep_state: leave the state file at the end; whoever asks for this removes it once the result is safe.
        progress: called after every round.
        accelerator: where to run; default: made from the environment.

    Raises:
        SelectionError, NonFiniteError, UnsupportedError: the network cannot be compressed; the message names
            the layer. DataError: no batches, or targets that do not fit. RecipeError: an impossible option.
        BudgetError: the target cannot be reached whatever is given up.
    """
    chosen = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    if target is not None or max_drop is not None:
        steer: dict[str, Any] = {"target": target, "max_drop": max_drop}
        chosen = chosen.updated(**steer, assign=chosen.assign.model_dump() | {"lam": None})
    check_call(chosen, evaluate, teacher)
    accelerator = accelerator or Accelerator()
    place = Path(state_file) if state_file is not None else None
    store = Store(place, chosen.model_dump_json(), accelerator)
    full = copy.deepcopy(model).to(accelerator.device).eval()
    select(full, chosen.select.include, chosen.select.exclude)  # refused before anything is trained
    listened = full if teacher is None else copy.deepcopy(teacher).to(accelerator.device)
    work = Work(chosen, train, Classification(), evaluate, full, full, listened)
    compressed = _run(work, Context(store, accelerator, progress))
    if not keep_state:
        store.forget()
    return compressed


def _run(work: Work, context: Context) -> Compressed:
    with torch.random.fork_rng():
        for stage in stages_of(work.recipe):
            torch.manual_seed(work.recipe.seed)  # so that a stage that was over before an interruption changes nothing
            work = stage.run(work, context)
    assert work.done is not None
    return work.done


def _again(work: Work, context: Context, recipe: Recipe) -> Compressed:
    """A run of another recipe on what is left of the network."""
    check_call(recipe, work.evaluate, None)
    return _run(Work(recipe, work.train, work.task, work.evaluate, work.model, work.model, work.teacher), context)
