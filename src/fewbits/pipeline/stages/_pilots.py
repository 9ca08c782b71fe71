"""Pilot runs: short trainings that choose what a recipe leaves open."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from fewbits.errors import BudgetError
from fewbits.pipeline._candidates import evaluated
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._pilot import Outcome, choose
from fewbits.pipeline.stages._work import Context, Work, between_rounds
from fewbits.recipe import Recipe
from fewbits.report.sizes import float_bytes
from fewbits.train.checkpoint import Store
from fewbits.train.loop import total_steps
from fewbits.weights import aliases

Again = Callable[[Work, Context, Recipe], Compressed]
"""Compresses ``work.model`` by another recipe; the context keeps nothing on disk."""


class Pilots:
    """Chooses bits and size by pilot runs; finished ones are kept, so an interruption costs one of them at most.

    Args:
        again: what makes a run.
    """

    def __init__(self, again: Again) -> None:
        self.again = again

    def run(self, work: Work, context: Context) -> Work:
        """The work with the float network's accuracy and a choice.

        Raises:
            BudgetError: nothing reaches the target.
        """
        if any(context.store.get(key) is not None for key in ("run", "held")):  # it is known what was chosen
            return work
        known = context.store.get("pilots") or {}

        def short(trial: Recipe, what: str, index: int, count: int) -> Outcome:
            key = trial.model_dump_json()
            if key not in known:
                known[key] = self._outcome(work, context, trial, what, index, count)
                context.store.put("pilots", known)
            found = known[key]
            return found if isinstance(found, str) else (found[0], found[1])

        before = work.before
        if before is None and work.evaluate is not None:
            before = evaluated(work.evaluate, copy.deepcopy(work.full))
        steps = total_steps(work.train, work.recipe.train)
        others = aliases(work.full)
        size = float_bytes({n: t for n, t in work.full.state_dict().items() if n not in others})
        return replace(work, before=before, choice=choose(work.recipe, short, before, size, steps))

    def _outcome(self, work: Work, context: Context, trial: Recipe, what: str, index: int, count: int) -> Outcome:
        def told(done: int, total: int, line: str) -> None:
            if context.progress is not None:
                context.progress(index * total + done, max(count, index + 1) * total, f"pilot run {what}: {line}")

        if between_rounds(context.progress) is not None:
            told.every_step = True  # type: ignore[attr-defined]
        try:
            nowhere = Store(None, "", context.accelerator)
            report = self.again(work, Context(nowhere, context.accelerator, told), trial).report
        except BudgetError as error:
            return str(error)
        assert report.accuracy_after is not None
        return report.file_bytes, report.accuracy_after
