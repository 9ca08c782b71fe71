"""One run of the main job, from the float network to the finished file."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fewbits import recipe as recipes
from fewbits.attach import attach
from fewbits.errors import BudgetError, RecipeError
from fewbits.graph.traced import TracedGraph, trace
from fewbits.pipeline import parts, resume
from fewbits.pipeline.candidates import Candidates, Evaluate
from fewbits.pipeline.compressed import Compressed
from fewbits.pipeline.finish import finish
from fewbits.pipeline.pilot import LARGER, PilotChoice, check, choose
from fewbits.pipeline.pruners import pruner_of
from fewbits.pipeline.rate_control import rank_key
from fewbits.pipeline.rounds import Progress, Rounds
from fewbits.pipeline.stages.channels import channel_stage
from fewbits.pipeline.stages.int8 import quantize
from fewbits.pipeline.trial_cache import Outcome, TrialCache, trial_cache_file
from fewbits.recipe import Recipe
from fewbits.report.sizes import float_bytes
from fewbits.train import checkpoint
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import fit, optimizer_of, total_steps
from fewbits.train.objectives import objective_of
from fewbits.weights import parameters_of, select

__all__ = ["Evaluate", "Progress", "Run", "compress"]


def _rank_key(done: Compressed) -> tuple[bool, float]:
    report = done.report
    return rank_key(report.met is not False, report.file_bytes, report.accuracy_after or 0.0)


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
    _check(chosen, evaluate, teacher)
    with torch.random.fork_rng():
        torch.manual_seed(chosen.seed)
        place = Path(state_file) if state_file is not None else None
        accelerator = accelerator or Accelerator()
        narrowed = channel_stage(model, train, chosen, place, progress=progress, accelerator=accelerator)
        torch.manual_seed(chosen.seed)
        if chosen.assign.method == "int8":  # calibrated, not steered: it has a short way of its own
            done = quantize(
                copy.deepcopy(narrowed), train, evaluate=evaluate, recipe=chosen, progress=progress,
                accelerator=accelerator, full=model, teacher=teacher, state_file=place,
            )  # fmt: skip
            compressed = Compressed(*done)
        else:
            run = Run(narrowed, train, evaluate, chosen, place, progress, accelerator, full=model, teacher=teacher)
            compressed = run.go()
        if place is not None and not keep_state and accelerator.is_main_process:
            resume.forget(place)
        return compressed


def _check(recipe: Recipe, evaluate: Evaluate | None, teacher: nn.Module | None) -> None:
    """Refuse before anything is trained what the arguments do not allow."""
    if recipe.max_drop is not None and evaluate is None:
        raise RecipeError("max_drop needs evaluate: a function that gives a network's accuracy in percent")
    if teacher is not None and not recipe.train.distill:
        raise RecipeError("a teacher needs train.distill, the weight of its answers, for example 0.5")
    check(recipe, evaluate)


class Run:
    """A run: what it was given, and the rounds it has seen."""

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        evaluate: Evaluate | None,
        recipe: Recipe,
        state_file: Path | None,
        progress: Progress | None,
        accelerator: Accelerator,
        *,
        full: nn.Module,
        teacher: nn.Module | None = None,
    ) -> None:
        self.recipe, self.train = recipe, train
        self.state_file, self.progress, self.accelerator = state_file, progress, accelerator
        original = copy.deepcopy(model).to(accelerator.device)
        original.eval()
        select(original, recipe.select.include, recipe.select.exclude)
        whole = copy.deepcopy(full).to(accelerator.device).eval()
        self.teacher = whole if teacher is None else copy.deepcopy(teacher).to(accelerator.device)
        self.candidates = Candidates(recipe, original, evaluate, whole)
        self.model = copy.deepcopy(original)
        self.traced: TracedGraph | None = trace(self.model) if parts.measured(recipe) == "relevance" else None
        self.rounds: Rounds
        self.chosen = PilotChoice()
        self.done: Compressed | None = None  # the best of the trainings that have ended

    def go(self) -> Compressed:
        """Make pilot runs, train under the plan, finish; again to a larger size if a drop of accuracy was not kept."""
        begin = time.perf_counter()
        saved = checkpoint.load_shared(self.state_file, self.recipe.model_dump_json(), self.accelerator)
        if saved is None:
            before = self.candidates.evaluated(self.candidates.full) if self.candidates.evaluate else None
            self.chosen = self._choose(before)
        else:
            before, self.chosen = saved["before"], resume.choice(saved)
            self.done = resume.done(saved, self.candidates.full)
        last = self._train(saved, before)
        self.done = self._better(last)
        while self._missed(last) and (larger := self.chosen.larger(self.recipe.target_bytes)) is not None:
            self.chosen = larger
            self.model = copy.deepcopy(self.candidates.original)
            self.traced = None if self.traced is None else trace(self.model)
            last = self._train(None, before)
            self.done = self._better(last)
        seconds = time.perf_counter() - begin
        return replace(self.done, report=self.done.report.updated(pilots=self.chosen.seen, seconds=seconds))

    def _better(self, last: Compressed) -> Compressed:
        return last if self.done is None else max(self.done, last, key=_rank_key)

    def _missed(self, done: Compressed) -> bool:
        """Whether a training to a size did not keep the drop there; an early, large candidate may have kept it."""
        size = self.chosen.size
        return size is not None and (done.report.met is False or done.report.file_bytes > size * LARGER)

    def _train(self, saved: dict[str, Any] | None, before: float | None) -> Compressed:
        """One training to what was chosen, or the rest of one."""
        begin = time.perf_counter()
        recipe, original = self.recipe, self.candidates.original
        settings = recipe.train
        assigner_at = parts.assigners(recipe, original, self.chosen.bits)
        weights = select(self.model, recipe.select.include, recipe.select.exclude)
        pruner_at = pruner_of(recipe, parameters_of(original))
        if pruner_at is not None:  # a min_kept that the final sparsity does not allow is refused now, not half-way
            pruner_at(1.0).update(weights, None, pruner_at(1.0).init(weights))
        state = assigner_at(0.0, 0.0).init(weights)
        plan, state = assigner_at(0.0, 0.0).update(weights, None, state)
        attach(self.model, plan, learn=settings.learn)
        self.optimizer = optimizer = optimizer_of(finetuning_groups(self.model, settings), settings)
        qat = QATCallback(
            self.model, assigner_at, state, 0.0, scorer=parts.scorer(recipe, self.model, self.traced),
            every=recipe.measure.every, settings=settings, accelerator=self.accelerator, on_round=self._round,
            rounds=recipe.rounds, optimizer=optimizer,
        )  # fmt: skip
        self.rounds = Rounds(recipe, self.candidates, parts.controller(recipe, before, self.chosen.size), before)
        if saved is None:
            self.rounds.first(qat)
        else:
            resume.restore(saved, self.rounds, qat, optimizer)
        if plan or recipe.channels is None:  # else channels are all there was to remove, and it is done
            fit(
                self.model, self.train, objective_of(settings, self.teacher), optimizer, settings,
                callback=qat, accelerator=self.accelerator, start=qat.steps,
            )  # fmt: skip
        return finish(self.rounds, qat, self.train, time.perf_counter() - begin)

    def _choose(self, before: float | None) -> PilotChoice:
        """What the recipe leaves to pilots; those that an interrupted run has finished are not trained again."""
        place = None if self.state_file is None else trial_cache_file(self.state_file)
        notes = TrialCache(place, self.recipe, self.accelerator)

        def short(trial: Recipe, what: str, index: int, count: int) -> Outcome:
            if trial not in notes:
                notes[trial] = self._short(trial, what, index, count)
            return notes[trial]

        steps = total_steps(self.train, self.recipe.train)
        return choose(self.recipe, short, before, float_bytes(self.candidates.full.state_dict()), steps)

    def _short(self, trial: Recipe, what: str, index: int, count: int) -> Outcome:
        def told(done: int, total: int, line: str) -> None:
            if self.progress is not None:
                whole = max(count, index + 1) * total
                self.progress(index * total + done, whole, f"pilot run {what}: {line}")

        try:
            report = compress(
                self.candidates.original, self.train, evaluate=self.candidates.evaluate, recipe=trial, progress=told,
                accelerator=self.accelerator, teacher=self.teacher if trial.train.distill else None,
            ).report  # fmt: skip
        except BudgetError as error:
            return str(error)
        assert report.accuracy_after is not None
        return report.file_bytes, report.accuracy_after

    def _round(self, qat: QATCallback, done: int, total: int) -> None:
        self.rounds.next(qat, done, total)
        if self.progress is not None:
            self.progress(done, total, self.rounds.line(qat.loss))
        if self.state_file is not None and done < total:
            resume.save(
                self.state_file, self.accelerator, self.rounds, qat, self.optimizer, self.chosen, self.done
            )  # fmt: skip
