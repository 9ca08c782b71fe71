"""The rounds of a run: at each, the file is really coded and lambda set anew."""

from __future__ import annotations

from collections.abc import Callable

from fewbits.pipeline.candidates import Candidates, agreed
from fewbits.plan import Plan
from fewbits.recipe import Recipe
from fewbits.report.report import Round
from fewbits.search import SizeAt, Steering
from fewbits.train.hold import Holding

Progress = Callable[[int, int, str], None]
"""``progress(steps done, steps in total, one line of text)``."""


class Rounds:
    """What was seen at each round, and what was done about it.

    Args:
        before: percent of the float network, if it was evaluated.

    Attributes:
        history: one entry per round. best: the smallest candidate within the budget of accuracy, and its accuracy.
    """

    def __init__(self, recipe: Recipe, candidates: Candidates, steering: Steering, before: float | None) -> None:
        self.recipe, self.candidates, self.steering, self.before = recipe, candidates, steering, before
        self.history: list[Round] = []
        self.best: tuple[Plan, float] | None = None

    def first(self, holding: Holding) -> None:
        """Before the first step."""
        base = self.candidates.of(holding.model)
        size = len(self.candidates.encoded(base))
        accuracy = self.candidates.accuracy(base) if self.steering.needs_accuracy else None
        lam = self.steering.next(0.0, size, accuracy, self.size_at(holding, base))
        self._note(holding, base, size, accuracy, 0)
        holding.take(agreed(lam))

    def next(self, holding: Holding, done: int, total: int) -> None:
        """After ``done`` of ``total`` steps."""
        base = self.candidates.of(holding.model)
        size = len(self.candidates.encoded(base))
        accuracy = self.candidates.accuracy(base) if self.steering.needs_accuracy else None
        self._note(holding, base, size, accuracy, done)
        if holding.settled:
            return
        size_at = self.size_at(holding, base)
        if done >= round(total * (1 - self.recipe.train.settle)) or done == total:
            holding.share = 1.0  # a schedule of pruning is over, to the weight
            holding.take(agreed(self.steering.final(size_at)))
            holding.settled = True
        else:
            holding.take(agreed(self.steering.next(done / total, size, accuracy, size_at)))

    def size_at(self, holding: Holding, base: Plan) -> SizeAt:
        """Bytes of the file for any lambda, with the weights as of now; ``base`` has everything else."""
        known: dict[float, int] = {}

        def size_at(lam: float) -> int:
            if lam not in known:
                plan, _ = holding.plan_at(lam)
                known[lam] = len(self.candidates.encoded(base.updated(plan)))
            return known[lam]

        return size_at

    def line(self, loss: float) -> str:
        """The last round in a few words."""
        last = self.history[-1]
        parts = [f"{last.bytes} bytes", f"{100 * last.zeros:.1f} % zeros", f"loss {loss:.3f}"]
        if last.accuracy is not None:
            parts.append(f"{last.accuracy:.2f} %")
        return ", ".join(parts)

    def _note(self, holding: Holding, plan: Plan, size: int, accuracy: float | None, done: int) -> None:
        kept = [entry.kept for entry in plan.compressed.values()]
        zeros = 1 - sum(int(k.sum()) for k in kept) / max(1, sum(k.numel() for k in kept))
        self.history.append(Round(done, holding.lam, size, zeros, accuracy))
        if accuracy is None or self.before is None or self.recipe.max_drop is None:
            return
        prune = self.recipe.prune
        if prune is not None and prune.schedule != "one-shot" and holding.share < prune.end:
            return  # not yet as sparse as was asked for
        within = accuracy >= self.before - self.recipe.max_drop
        fits = self.recipe.target_bytes is None or size <= self.recipe.target_bytes
        if within and fits and (self.best is None or size < len(self.candidates.encoded(self.best[0]))):
            self.best = plan, accuracy
