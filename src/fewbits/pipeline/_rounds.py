"""The rounds of a run: at each, the file is coded or its size estimated, and lambda set anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fewbits.pipeline._candidates import Candidates, broadcast_from_main
from fewbits.pipeline._sizes import Coded, Sizes
from fewbits.pipeline.rate_control import HEADROOM, RateController, TargetSize, bracket, fill_to_size
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

LAST = 4
"""Rounds until a costly file is coded again: training changes what a coder makes of the same entropy."""

ERROR = 0.03
"""How far an estimate may be off, as a share of it: what may be a candidate is coded."""


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
        files: of a large network, the last ones that were coded. age: rounds since then.
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
        self.files: list[Coded] = []
        self.age = 0

    def first(self, qat: QATCallback) -> None:
        """Before the first step."""
        sizes, accuracy = self._now(qat, 0)
        self._onward(qat, 0.0, 1 / self.recipe.rounds, accuracy, sizes)
        self._over(sizes)

    def next(self, qat: QATCallback, done: int, total: int) -> None:
        """After ``done`` of ``total`` steps."""
        sizes, accuracy = self._now(qat, done)
        if qat.settled:
            return
        if qat.settles and (done >= round(total * (1 - self.recipe.train.settle)) or done == total):
            self._settle(qat, sizes, accuracy)
        else:
            until = next_round(done, total, self.recipe.rounds) / total
            self._onward(qat, done / total, until, accuracy, sizes)
        self._over(sizes)

    def only(self, qat: QATCallback) -> None:
        """In place of a training: the assignment of the weights as they are."""
        base = self.candidates.of(qat.model)
        self._settle(qat, Sizes(self.candidates, qat, base, self.candidates.encoded(base)), self._accuracy(base))

    def _now(self, qat: QATCallback, done: int) -> tuple[Sizes, float | None]:
        """What would be written now and its percent on validation data, noted after ``done`` steps.

        Its levels are those that are held, until the next assignment.
        """
        base = self.candidates.of(qat.model)
        accuracy = self._accuracy(base)
        sizes = Sizes(self.candidates, qat, base, files=self.files)
        if not self._estimated(sizes) or self._better(qat, sizes.size, accuracy, ERROR):
            sizes.code()
        self._note(qat, sizes, accuracy, done)
        return sizes, accuracy

    def _estimated(self, sizes: Sizes) -> bool:
        """Whether an estimate of the size will do at this round."""
        return sizes.costly and not self.controller.needs_accuracy and self.age < LAST

    def _over(self, sizes: Sizes) -> None:
        """A round is over: estimates of the next one are relative to its files."""
        self.age = self.age + 1 if sizes.files == self.files else 0
        self.files = sizes.files[-2:]

    def _settle(self, qat: QATCallback, sizes: Sizes, accuracy: float | None) -> None:
        """The last assignment, which then stays."""
        qat.share = 1.0  # a schedule of pruning is over, to the weight
        self.controller.see(sizes.size, accuracy)
        lam = broadcast_from_main(self.controller.final(sizes))
        qat.take(lam, sizes.assigned(lam))
        if isinstance(self.controller, TargetSize):
            self._fill(qat, sizes, round(self.controller.target * HEADROOM))
        qat.settled = True

    def _onward(self, qat: QATCallback, share: float, until: float, accuracy: float | None, sizes: Sizes) -> None:
        """Set lambda for the time from ``share`` of the training to ``until``, the next round."""
        gradual = self.recipe.train.gradual and isinstance(self.controller, TargetSize)
        at = min(1.0, until) if gradual else share
        lam = broadcast_from_main(self.controller.next(at, sizes.size, accuracy, sizes))
        if gradual:
            qat.toward(lam)
        else:
            qat.take(lam, sizes.assigned(lam))

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
        parts = [f"{'about ' if last.estimated else ''}{last.bytes} bytes", f"{100 * last.zeros:.1f} % zeros"]
        if loss is not None:
            parts.append(f"loss {loss:.3f}")
        if last.accuracy is not None:
            parts.append(accuracy(self.metric.shown(last.accuracy), self.metric.name))
        return ", ".join(parts)

    def _note(self, qat: QATCallback, sizes: Sizes, accuracy: float | None, done: int) -> None:
        compressed = sizes.base.compressed.values()
        total = sum(math.prod(entry.shape) for entry in compressed)
        zeros = 1 - sum(int(entry.kept.sum()) for entry in compressed) / max(1, total)
        self.history.append(Round(done, qat.lam, sizes.size, zeros, accuracy, sizes.data is None))
        if sizes.data is not None and self._better(qat, len(sizes.data), accuracy):
            assert accuracy is not None
            self.best = Kept(sizes.data, self.candidates.written(sizes.base).digest(), qat.lam, accuracy)

    def _better(self, qat: QATCallback, size: int, accuracy: float | None, error: float = 0.0) -> bool:
        """Whether what would be written now is the best candidate so far, or may be, if the size is ``error`` off."""
        if accuracy is None or self.before is None:
            return False
        prune, target, drop = self.recipe.prune, self.recipe.target_bytes, self.recipe.max_drop
        if prune is not None and prune.schedule != "one-shot" and qat.share < prune.end:
            return False  # not yet as sparse as was asked for
        if target is not None and size * (1 - error) > target:
            return False
        if drop is not None:
            kept = accuracy >= self.before - drop
            return kept and (self.best is None or size * (1 - error) < self.best.bytes)
        assert target is not None  # a controller that sees accuracies has a budget
        return size * (1 + error) >= NEAR * target and (self.best is None or accuracy >= self.best.accuracy)
