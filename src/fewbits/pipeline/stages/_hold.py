"""The main stage: a plan is held while the network trains, or once without training, and becomes a file."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.attach import Holder, Parametrized
from fewbits.int8.holder import IntegerForm
from fewbits.pipeline import parts
from fewbits.pipeline._candidates import Candidates
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._finish import finish
from fewbits.pipeline._pilot import LARGER, PilotChoice
from fewbits.pipeline._rounds import Rounds
from fewbits.pipeline.methods import method_of
from fewbits.pipeline.pruners import check_last, diagonals_for, pruner_of, pruner_row
from fewbits.pipeline.rate_control import rank_key
from fewbits.pipeline.stages import _state as state
from fewbits.pipeline.stages._once import once_of, sample_shape
from fewbits.pipeline.stages._work import Context, Work, between_rounds
from fewbits.private import Diagonals
from fewbits.recipe import Recipe
from fewbits.train.grids import GridOptimizer
from fewbits.train.group_lasso import GroupLasso
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.learning import learning
from fewbits.train.loop import fit, optimizer_of, total_steps
from fewbits.train.measured import measured_on
from fewbits.train.objectives import objective_of
from fewbits.weights import parameters_of, same_weights, select


def _rank(done: Compressed) -> tuple[bool, float]:
    report = done.report
    return rank_key(report.met is not False, report.file_bytes, report.accuracy_after or 0.0)


class Hold:
    """Holds the recipe's method on the network, trains it by the task, steers its size, and writes the file."""

    def run(self, work: Work, context: Context) -> Work:
        """The work done; again to a larger size if a drop of accuracy was not kept.

        Raises:
            BudgetError: the target cannot be reached whatever is given up.
        """
        begin = time.perf_counter()
        held = context.store.get("held")
        if held is not None:  # a later stage was interrupted
            return replace(work, done=state.done(held, work.full, work.base))
        saved = context.store.get("run")
        if saved is not None:
            work = replace(
                work, before=saved["before"], choice=state.choice(saved), done=state.done(saved, work.full, work.base)
            )
        last = HeldTraining(work, context).go(saved)
        best = _better(work.done, last)
        while _missed(last, work.choice) and (larger := work.choice.larger(work.recipe.target_bytes)) is not None:
            work = replace(work, choice=larger, done=best)
            last = HeldTraining(work, context).go(None)
            best = _better(best, last)
        seconds = time.perf_counter() - begin
        report = best.report.updated(pilots=work.choice.seen, seconds=seconds, operations=work.operations)
        return replace(work, done=replace(best, report=report))


def _better(best: Compressed | None, last: Compressed) -> Compressed:
    return last if best is None else max(best, last, key=_rank)


def _missed(done: Compressed, choice: PilotChoice) -> bool:
    """Whether a training to a size did not keep the drop there; an early, large candidate may have kept it."""
    size = choice.size
    return size is not None and (done.report.met is False or done.report.file_bytes > size * LARGER)


class HeldTraining:
    """One training to what was chosen, or the rest of one.

    Args:
        model: what is trained, in place; default: a copy of the work's network, or of its integer form.
        optimizer: what steps, where the loop is the user's; default: the recipe's.
    """

    def __init__(
        self,
        work: Work,
        context: Context,
        *,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.work, self.context, self.recipe = work, context, work.recipe
        self.holder: Holder = Parametrized() if work.form is None else IntegerForm(work.model)
        self.candidates = Candidates(
            work.recipe, work.model, work.evaluate, work.full, self.holder, work.calibration, work.base, once_of(work)
        )
        self.model = copy.deepcopy(work.model if work.form is None else work.form) if model is None else model
        self.optimizer = optimizer
        self.grids: GridOptimizer | None = None

    def prepare(self) -> None:
        """Attach the first plan, and make what keeps it up to date."""
        recipe, work, settings = self.recipe, self.work, self.recipe.train
        scorer = parts.scorer(recipe, self.model, work.task)
        bases = self.candidates.bases
        weights = select(work.model, recipe.select.include, recipe.select.exclude)
        weights = {name: w for name, w in weights.items() if not _is_base(w, bases.get(name))}
        diagonals = None
        if recipe.prune is not None and pruner_row(recipe.prune).packed:
            diagonals = diagonals_for(recipe, work.model, weights, sample_shape(work))
        assigner_at = parts.assigners(recipe, work.model, work.choice.bits, bases, diagonals)
        weights = same_weights(work.model, self.model, weights)
        for weight in weights.values():  # what is compressed is trained, frozen or not
            weight.requires_grad_(True)
        scores = None
        if scorer is not None and (not settings.epochs or _pruned_by_scores(recipe)):
            scores = measured_on(self.model, scorer, weights, work.train, work.task, recipe.measure.batches)
        pruner_at = pruner_of(recipe, parameters_of(work.model), diagonals)
        if pruner_at is not None:
            check_last(pruner_at, weights, scores)
        weights = {n: w.detach() - bases[n].to(w.device) if n in bases else w for n, w in weights.items()}
        plan, first = assigner_at(0.0, 0.0).update(weights, scores, assigner_at(0.0, 0.0).init(weights))
        self.holder.attach(self.model, plan, learn=settings.learn)
        groups = finetuning_groups(self.model, settings)
        if self.optimizer is None:
            self.optimizer = optimizer_of(groups, settings)
        elif groups[2:]:  # steps and centroids, which the user's optimizer cannot know
            self.grids = GridOptimizer(self.optimizer, groups[2:])
        self.qat = QATCallback(
            self.model, assigner_at, first, 0.0, scorer=scorer, every=recipe.measure.every, settings=settings,
            accelerator=self.context.accelerator, on_round=self.round, rounds=recipe.rounds,
            optimizer=self.optimizer if self.grids is None else self.grids.own, holder=self.holder,
            settles=method_of(recipe).settles,
            on_step=None if between_rounds(self.context.progress) is None else self.step,
            lasso=_lasso(recipe, diagonals),
        )  # fmt: skip
        self.rounds = Rounds(
            recipe, self.candidates, parts.controller(recipe, work.before, work.choice.size), work.before, work.metric
        )

    def go(self, saved: dict[str, Any] | None) -> Compressed:
        """Attach the first plan, train under it, and finish."""
        begin = time.perf_counter()
        self.prepare()
        recipe, work, settings, qat = self.recipe, self.work, self.recipe.train, self.qat
        assert self.optimizer is not None
        if not settings.epochs:
            self.rounds.only(qat)
            return finish(self.rounds, qat, work.train, time.perf_counter() - begin)
        if saved is None:
            total = total_steps(work.train, settings)
            if (told := between_rounds(self.context.progress)) is not None:
                told(0, total, "counting the bytes of the network as it is")
            self.rounds.first(qat)
            self.step(qat, 0, total)
        else:
            state.restore(saved, self.rounds, qat, self.optimizer)
        if qat.weights or recipe.channels is None:  # else channels are all there was to remove, and it is done
            fit(
                self.model, work.train, objective_of(settings, work.teacher, work.task), self.optimizer, settings,
                callback=qat, accelerator=self.context.accelerator, start=qat.steps, task=work.task,
                rule=learning(settings),
            )  # fmt: skip
        self.optimizer.state.clear()  # twice the network, for which there is no use any more
        return finish(self.rounds, qat, work.train, time.perf_counter() - begin)

    def step(self, qat: QATCallback, done: int, total: int) -> None:
        """After every step, and before the first."""
        if (told := between_rounds(self.context.progress)) is not None:
            told(done, total, self.rounds.line(qat.loss if done else None))

    def round(self, qat: QATCallback, done: int, total: int) -> None:
        """At every round, and after the last step."""
        self.rounds.next(qat, done, total)
        if done < total:
            value = state.saved(self.rounds, qat, self.optimizer, self.work.choice, self.work.done)
            self.context.store.put("run", value)
        if self.context.progress is not None:  # last: it may be where the user interrupts
            self.context.progress(done, total, self.rounds.line(qat.loss))


def _lasso(recipe: Recipe, diagonals: Diagonals | None) -> GroupLasso | None:
    if recipe.prune is None or diagonals is None or not recipe.prune.lasso:
        return None
    return GroupLasso(diagonals.groups, recipe.prune.lasso, recipe.prune.end)


def _pruned_by_scores(recipe: Recipe) -> bool:
    return recipe.prune is not None and pruner_row(recipe.prune).scores


def _is_base(weight: Tensor, base: Tensor | None) -> bool:
    """Whether a weight is frozen at its base's numbers: the file then says just that, whatever is trained."""
    return base is not None and not weight.requires_grad and torch.equal(weight, base.to(weight.device))
