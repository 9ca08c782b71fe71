"""The final search: a few candidates around the trained plan, without further training, on validation data."""

from __future__ import annotations

from dataclasses import replace

from fewbits.errors import BudgetError, FormatError
from fewbits.pipeline._candidates import broadcast_from_main
from fewbits.pipeline._rounds import NEAR, Kept, Rounds
from fewbits.pipeline._sizes import Sizes
from fewbits.pipeline.methods import method_of
from fewbits.pipeline.rate_control import SizeSearch, bracket, fill_to_size, solve
from fewbits.pipeline.restore import decoded
from fewbits.plan import Clustered, Plan
from fewbits.report.report import Try
from fewbits.train.hold import QATCallback


class Final:
    """Chooses what is written: within the budget, whatever became of the size while floats settled.

    Attributes:
        tries: what was looked at, in order; the chosen one is marked.
    """

    def __init__(self, rounds: Rounds, qat: QATCallback) -> None:
        self.steerable = method_of(rounds.recipe).steerable
        self.rounds, self.qat, self.candidates = rounds, qat, rounds.candidates
        self.tries: list[Try] = []
        self.plans: list[Plan] = []  # as they are written
        self.files: list[bytes] = []
        self.settled = self.candidates.of(qat.model)

    def choose(self) -> tuple[Plan, bytes, float | None]:
        """The plan that is written, its file, and its percent on validation data.

        Raises:
            BudgetError: no file is as small as the target.
        """
        recipe = self.rounds.recipe
        settled = self._add("settled", self.settled, self.qat.lam)
        self.size_at = Sizes(self.candidates, self.qat, self.settled, self.files[0])
        best = self.rounds.best
        if best is not None and best.digest != self.candidates.written(self.settled).digest():
            self._keep(Try("round", best.lam, len(best.data), best.accuracy), self._decoded(best), best.data)
        if not self.steerable:
            chosen = 0
        elif recipe.max_drop is not None:
            self._shrink()
            chosen = self._smallest()
        elif recipe.target_bytes is not None:
            self._fill(recipe.target_bytes, settled)
            chosen = self._most_accurate(recipe.target_bytes)
        else:
            chosen = 0
        self.tries[chosen] = replace(self.tries[chosen], kept=True)
        return self.plans[chosen], self.files[chosen], self.tries[chosen].accuracy

    # -- a target of bytes -------------------------------------------------------------------------------

    def _fill(self, target: int, settled: Try) -> None:
        """Reach the target from the settled plan by moving as few weights as need be."""
        if NEAR * target <= settled.bytes <= target or (settled.bytes < target and self.size_at(0.0) <= target):
            return
        low, high = bracket(self.size_at, target, self.qat.lam or 0.05, tolerance=0.002)
        low, high = broadcast_from_main(low), broadcast_from_main(high)
        if settled.bytes > target:
            smaller, larger = self._plan_at(high), self.settled
        else:
            smaller, larger = self.settled, self._plan_at(low)
        filled = fill_to_size(smaller, larger, self.qat.weights, self.candidates.size, target)
        self._add("filled", filled, high)

    def _most_accurate(self, target: int) -> int:
        fits = [i for i, t in enumerate(self.tries) if t.bytes <= target]
        near = [i for i in fits if self.tries[i].bytes >= NEAR * target] or fits
        return max(near, key=lambda i: (self.tries[i].accuracy or 0.0, self.tries[i].bytes, -i))

    # -- a drop of accuracy ------------------------------------------------------------------------------

    def _shrink(self) -> None:
        """Smaller while the least accuracy is kept, larger while it is not."""
        recipe, before = self.rounds.recipe, self.rounds.before
        assert before is not None
        assert recipe.max_drop is not None
        search = SizeSearch(before - recipe.max_drop, recipe.target_bytes, tries=recipe.tries)
        for seen in self.tries:
            assert seen.accuracy is not None  # max_drop needs evaluate
            search.tell(seen.bytes, seen.accuracy)
        while (goal := search.next()) is not None:
            try:
                lam = broadcast_from_main(solve(self.size_at, goal, self.qat.lam or 0.05, tolerance=0.005))
            except BudgetError:
                if not search.fitting:  # the target itself
                    raise
                search.fail(goal)
                search.tries -= 1
                continue
            plan = self._plan_at(lam)
            found = self._add("smaller" if lam > self.qat.lam else "larger", plan, lam)
            assert found.accuracy is not None
            search.tell(found.bytes, found.accuracy, goal)
            if lam == 0.0 and found.accuracy < search.min_accuracy:
                break  # no file of these weights is larger

    def _smallest(self) -> int:
        recipe, before = self.rounds.recipe, self.rounds.before
        assert before is not None
        assert recipe.max_drop is not None
        limit, min_accuracy = recipe.target_bytes, before - recipe.max_drop
        fits = [i for i, t in enumerate(self.tries) if limit is None or t.bytes <= limit]
        if not fits:
            raise BudgetError(f"no candidate is as small as {limit:,} bytes; ask for a little more")
        kept = [i for i in fits if (self.tries[i].accuracy or 0.0) >= min_accuracy]
        if kept:
            return min(kept, key=lambda i: (self.tries[i].bytes, -(self.tries[i].accuracy or 0.0)))
        return max(fits, key=lambda i: (self.tries[i].accuracy or 0.0, -self.tries[i].bytes))

    # -- candidates --------------------------------------------------------------------------------------

    def _plan_at(self, lam: float) -> Plan:
        plan, _ = self.size_at.assigned(lam)
        entries = {n: replace(e, levels=e.levels.cpu()) for n, e in plan.items() if isinstance(e, Clustered)}
        return self.settled.updated(entries)

    def _decoded(self, kept: Kept) -> Plan:
        """The plan of a round's candidate.

        Raises:
            FormatError: its file does not hold what the network in training had.
        """
        plan = decoded(kept.data, self.candidates.full, self.candidates.base)
        if plan.digest() != kept.digest:
            raise FormatError("a file that was kept while training does not decode to the plan that it was made of")
        return plan

    def _add(self, what: str, plan: Plan, lam: float) -> Try:
        accuracy = None if self.candidates.evaluate is None else self.candidates.accuracy(plan)
        data = self.candidates.encoded(plan)
        return self._keep(Try(what, lam, len(data), accuracy), self.candidates.written(plan), data)

    def _keep(self, seen: Try, written: Plan, data: bytes) -> Try:
        self.tries.append(seen)
        self.plans.append(written)
        self.files.append(data)
        return seen
