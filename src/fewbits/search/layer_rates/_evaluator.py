"""What a search pays with: evaluations of the network, counted and remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewbits.errors import RecipeError
from fewbits.search.layer_rates._objective import Targets
from fewbits.search.layer_rates._space import Kept, RateSpace

Measure = Callable[[Kept], float]
"""``measure(kept) -> accuracy in percent`` on the proxy samples, of the pruned and recalibrated network."""


class Spent(Exception):  # noqa: N818 - the ordinary end of a search
    """No further evaluation is to be had: the budget is spent, or both targets are met."""


@dataclass(frozen=True)
class Evaluation:
    """One choice and what came out. ``accuracy`` in percent, ``sparsity`` in 0..1, ``score`` see :class:`Targets`."""

    kept: Kept
    accuracy: float
    sparsity: float
    score: float


class Evaluator:
    """The only way of a search to the network.

    **An evaluation is one choice whose accuracy was asked for the first time in this search**: one recalibration and
    one forward pass over the proxy samples. Asked again, the answer is remembered and costs nothing, for every method
    alike. The dense network, which every search starts from, is not counted. Reading a sparsity is free.

    Args:
        space: of choices. measure: the accuracy of one. targets: of the score. budget: evaluations, at least 1.
        stop_when_met: whether the search is over once both targets are met, as nothing better is possible.

    Attributes:
        used: evaluations so far. best: the best choice so far, the first of equals; at first the dense network.
        history: ``(evaluations used, evaluation)`` of every improvement.
    """

    def __init__(
        self,
        space: RateSpace,
        measure: Measure,
        targets: Targets,
        budget: int,
        *,
        stop_when_met: bool = False,
        on_evaluation: Callable[[Evaluator], None] | None = None,
    ) -> None:
        if budget < 1:
            raise RecipeError(f"a search needs at least one evaluation, got {budget}")
        self.space, self.measure, self.targets, self.budget = space, measure, targets, budget
        self.stop_when_met, self.on_evaluation = stop_when_met, on_evaluation
        self.used = 0
        self.dense = self._made(space.dense)
        self.best = self.dense
        self.history: list[tuple[int, Evaluation]] = []
        self._known = {space.dense: self.dense}

    @property
    def left(self) -> int:
        """Evaluations that may still be asked for."""
        return self.budget - self.used

    def __call__(self, kept: Kept) -> Evaluation:
        """The evaluation of a choice.

        Raises:
            Spent: it is new, and there is no budget for it. RecipeError: no choice of the space.
        """
        if kept in self._known:
            return self._known[kept]
        self.space.check(kept)
        if self.left <= 0 or (self.stop_when_met and self.best.score >= 0):
            raise Spent
        found = self._made(kept)
        self.used += 1
        self._known[kept] = found
        if found.score > self.best.score:
            self.best = found
            self.history.append((self.used, found))
        if self.on_evaluation is not None:
            self.on_evaluation(self)
        return found

    def _made(self, kept: Kept) -> Evaluation:
        accuracy, sparsity = self.measure(kept), self.space.sparsity(kept)
        return Evaluation(kept, accuracy, sparsity, self.targets.score(accuracy, sparsity))
