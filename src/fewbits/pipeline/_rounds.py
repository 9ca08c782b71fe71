"""The rounds of a run: at each, the file is really coded and lambda set anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewbits.pipeline._candidates import Candidates, broadcast_from_main
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
    """A candidate worth keeping: its plan, lambda, bytes of its file and percent on validation data."""

    plan: Plan
    lam: float
    bytes: int
    accuracy: float


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
        base = self.candidates.of(qat.model)
        size = self.candidates.size(base)
        accuracy = self._accuracy(base)
        size_at = self.size_at(qat, base)
        self._note(qat, base, size, accuracy, 0)
        self._onward(qat, 0.0, 1 / self.recipe.rounds, size, accuracy, size_at)

    def next(self, qat: QATCallback, done: int, total: int) -> None:
        """After ``done`` of ``total`` steps."""
        base = self.candidates.of(qat.model)
        size = self.candidates.size(base)
        accuracy = self._accuracy(base)
        self._note(qat, base, size, accuracy, done)
        if qat.settled:
            return
        if qat.settles and (done >= round(total * (1 - self.recipe.train.settle)) or done == total):
            self._settle(qat, base, size, accuracy)
        else:
            until = next_round(done, total, self.recipe.rounds) / total
            self._onward(qat, done / total, until, size, accuracy, self.size_at(qat, base))

    def only(self, qat: QATCallback) -> None:
        """In place of a training: the assignment of the weights as they are."""
        base = self.candidates.of(qat.model)
        self._settle(qat, base, self.candidates.size(base), self._accuracy(base))

    def _settle(self, qat: QATCallback, base: Plan, size: int, accuracy: float | None) -> None:
        """The last assignment, which then stays."""
        size_at = self.size_at(qat, base)
        qat.share = 1.0  # a schedule of pruning is over, to the weight
        self.controller.see(size, accuracy)
        qat.take(broadcast_from_main(self.controller.final(size_at)))
        if isinstance(self.controller, TargetSize):
            self._fill(qat, base, size_at, round(self.controller.target * HEADROOM))
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

    def size_at(self, qat: QATCallback, base: Plan) -> SizeAt:
        """Bytes of the file for any lambda, with the weights as of now; ``base`` has everything else."""
        known: dict[float, int] = {}

        def size_at(lam: float) -> int:
            if lam not in known:
                plan, _ = qat.plan_at(lam)
                known[lam] = self.candidates.size(base.updated(plan))
            return known[lam]

        return size_at

    def _accuracy(self, plan: Plan) -> float | None:
        known = self.candidates.evaluate is not None and (self.controller.steers or self.controller.needs_accuracy)
        return self.candidates.accuracy(plan) if known else None

    def _fill(self, qat: QATCallback, base: Plan, size_at: SizeAt, goal: int) -> None:
        """Where lambda jumps over the goal, hold single weights of the larger assignment."""
        if qat.lam == 0.0 or size_at(qat.lam) >= goal * NEAR:
            return
        larger, _ = bracket(size_at, goal, qat.lam)
        smaller, _ = qat.plan_at(qat.lam)
        qat.hold(
            fill_to_size(smaller, qat.plan_at(broadcast_from_main(larger))[0], qat.weights,
                    lambda plan: self.candidates.size(base.updated(plan)), goal)
        )  # fmt: skip

    def line(self, loss: float) -> str:
        """The last round in a few words."""
        last = self.history[-1]
        parts = [f"{last.bytes} bytes", f"{100 * last.zeros:.1f} % zeros", f"loss {loss:.3f}"]
        if last.accuracy is not None:
            parts.append(accuracy(self.metric.shown(last.accuracy), self.metric.name))
        return ", ".join(parts)

    def _note(self, qat: QATCallback, plan: Plan, size: int, accuracy: float | None, done: int) -> None:
        kept = [entry.kept for entry in plan.compressed.values()]
        zeros = 1 - sum(int(k.sum()) for k in kept) / max(1, sum(k.numel() for k in kept))
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
            self.best = Kept(plan, qat.lam, size, accuracy)
