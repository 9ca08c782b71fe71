"""The rounds of a run: at each, the file is coded once or twice and lambda set anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fewbits.pipeline._candidates import Candidates, broadcast_from_main
from fewbits.pipeline._sizes import Sizes
from fewbits.pipeline.rate_control import HEADROOM, RateController, SizeAt, TargetSize, bracket, fill_to_size
from fewbits.plan import Plan
from fewbits.recipe import Recipe
from fewbits.report.report import Round
from fewbits.report.words import accuracy
from fewbits.task import METRICS, Metric
from fewbits.train.hold import QATCallback, next_round

Progress = Callable[[int, int, str], None]
"""``progress(steps done, steps in total, one line of text)``."""


NEAR = 0.98
"""A file is as large as its target allows when it has at least this share of it."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A candidate worth keeping: its file (a plan would be ten times as large), lambda, percent on validation data.

    Attributes:
        digest: of the plan that the file was made of, see :meth:`fewbits.plan.Plan.digest`.
    """

    data: bytes
    digest: bytes
    lam: float
    accuracy: float

    @property
    def bytes(self) -> int:
        """Of its file."""
        return len(self.data)


class Rounds:
    """What was seen at each round, and what was done about it.

    Args:
        before: how good the float network is, if it was evaluated. metric: the scale of that.

    Attributes:
        history: one entry per round.
        best: of all rounds' candidates that keep the budget: the smallest, if it is one of accuracy, else the most
            accurate of those as large as the target allows.
    """

    def __init__(
        self,
        recipe: Recipe,
        candidates: Candidates,
        controller: RateController,
        before: float | None,
        metric: Metric = METRICS["percent"],
    ) -> None:
        self.recipe, self.candidates, self.controller, self.before = recipe, candidates, controller, before
        self.metric = metric
        self.history: list[Round] = []
        self.best: Kept | None = None

    def first(self, qat: QATCallback) -> None:
        """Before the first step."""
        base, data, accuracy = self._now(qat, 0)
        self._onward(qat, 0.0, 1 / self.recipe.rounds, len(data), accuracy, Sizes(self.candidates, qat, base, data))

    def next(self, qat: QATCallback, done: int, total: int) -> None:
        """After ``done`` of ``total`` steps."""
        base, data, accuracy = self._now(qat, done)
        if qat.settled:
            return
        sizes = Sizes(self.candidates, qat, base, data)
        if qat.settles and (done >= round(total * (1 - self.recipe.train.settle)) or done == total):
            self._settle(qat, sizes, accuracy)
        else:
            until = next_round(done, total, self.recipe.rounds) / total
            self._onward(qat, done / total, until, len(data), accuracy, sizes)

    def only(self, qat: QATCallback) -> None:
        """In place of a training: the assignment of the weights as they are."""
        base = self.candidates.of(qat.model)
        self._settle(qat, Sizes(self.candidates, qat, base, self.candidates.encoded(base)), self._accuracy(base))

    def _now(self, qat: QATCallback, done: int) -> tuple[Plan, bytes, float | None]:
        """What would be written now, its file and its percent on validation data, noted after ``done`` steps.

        The plan's levels are those that are held, until the next assignment.
        """
        base = self.candidates.of(qat.model)
        data = self.candidates.encoded(base)
        accuracy = self._accuracy(base)
        self._note(qat, base, data, accuracy, done)
        return base, data, accuracy

    def _settle(self, qat: QATCallback, sizes: Sizes, accuracy: float | None) -> None:
        """The last assignment, which then stays."""
        qat.share = 1.0  # a schedule of pruning is over, to the weight
        self.controller.see(len(sizes.data), accuracy)
        qat.take(broadcast_from_main(self.controller.final(sizes)))
        if isinstance(self.controller, TargetSize):
            self._fill(qat, sizes, round(self.controller.target * HEADROOM))
        qat.settled = True

    def _onward(
        self, qat: QATCallback, share: float, until: float, size: int, accuracy: float | None, size_at: SizeAt
    ) -> None:
        """Set lambda for the time from ``share`` of the training to ``until``, the next round."""
        gradual = self.recipe.train.gradual and isinstance(self.controller, TargetSize)
        lam = broadcast_from_main(self.controller.next(min(1.0, until) if gradual else share, size, accuracy, size_at))
        if gradual:
            qat.toward(lam)
        else:
            qat.take(lam)

    def _accuracy(self, plan: Plan) -> float | None:
        known = self.candidates.evaluate is not None and (self.controller.steers or self.controller.needs_accuracy)
        return self.candidates.accuracy(plan) if known else None

    def _fill(self, qat: QATCallback, sizes: Sizes, goal: int) -> None:
        """Where lambda jumps over the goal, hold single weights of the larger assignment."""
        if qat.lam == 0.0 or sizes(qat.lam) >= goal * NEAR:
            return
        larger, _ = bracket(sizes, goal, qat.lam)
        smaller, _ = qat.plan_at(qat.lam)
        qat.hold(
            fill_to_size(smaller, qat.plan_at(broadcast_from_main(larger))[0], qat.weights,
                    lambda plan: self.candidates.size(sizes.base.updated(plan)), goal)
        )  # fmt: skip

    def line(self, loss: float | None) -> str:
        """The last round in a few words, and the loss, if there is one yet."""
        last = self.history[-1]
        parts = [f"{last.bytes} bytes", f"{100 * last.zeros:.1f} % zeros"]
        if loss is not None:
            parts.append(f"loss {loss:.3f}")
        if last.accuracy is not None:
            parts.append(accuracy(self.metric.shown(last.accuracy), self.metric.name))
        return ", ".join(parts)

    def _note(self, qat: QATCallback, plan: Plan, data: bytes, accuracy: float | None, done: int) -> None:
        size = len(data)
        total = sum(math.prod(entry.shape) for entry in plan.compressed.values())
        zeros = 1 - sum(int(entry.kept.sum()) for entry in plan.compressed.values()) / max(1, total)
        self.history.append(Round(done, qat.lam, size, zeros, accuracy))
        if accuracy is None or self.before is None:
            return
        prune, target, drop = self.recipe.prune, self.recipe.target_bytes, self.recipe.max_drop
        if prune is not None and prune.schedule != "one-shot" and qat.share < prune.end:
            return  # not yet as sparse as was asked for
        if target is not None and size > target:
            return
        if drop is not None:
            better = accuracy >= self.before - drop and (self.best is None or size < self.best.bytes)
        else:
            assert target is not None  # a controller that sees accuracies has a budget
            better = size >= NEAR * target and (self.best is None or accuracy >= self.best.accuracy)
        if better:
            self.best = Kept(data, self.candidates.written(plan).digest(), qat.lam, accuracy)
