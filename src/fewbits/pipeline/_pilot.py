"""What short trainings choose: the bits that a recipe leaves open, and the size that keeps a drop of accuracy.

What the first assignment distorts does not tell the bits: by the squared error, weighted by curvature or not, networks
would get other bits than those that trained best. Nor does a network in training tell the size: at a high learning
rate it is far less accurate than at the end, so whoever shrinks it by what is seen then stops too early.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fewbits.errors import BudgetError, RecipeError
from fewbits.pipeline.methods import bits_of, method_of
from fewbits.pipeline.rate_control import SizeSearch, rank_key
from fewbits.recipe import Recipe
from fewbits.report.report import PilotRun

Outcome = tuple[int, float] | str
"""Bytes and percent, or why the target is out of reach."""

BITS = (2, 3, 4, 5)
SHARE = 0.25  # of the training, each; with a tenth, small networks got the wrong bits
STEPS = 500  # at least, if the training has as many: in fifty steps no network recovers from two bits
START = 32  # the first size is the float network's over this: one bit per weight
STEP = 0.5  # from one size to the next, until one is kept and one is not
CLOSE = 1.1  # and then halves of the gap, down to this ratio
FULL = 0.9  # of its target at least, or a file is as large as it gets
ATTEMPTS, LARGER = 3, 1.2  # trainings to a size at most, each so much larger than the one that did not keep the drop


@dataclass(frozen=True)
class PilotChoice:
    """What pilots chose.

    Attributes:
        bits: of the grid, where the recipe left them open. size: bytes, the smallest that kept the drop of accuracy;
            ``None`` where none was asked for or none did. seen: what they were chosen by. attempt: which training to a
            size that should keep the drop this is.
    """

    bits: int | None = None
    size: int | None = None
    seen: tuple[PilotRun, ...] = ()
    attempt: int = 1

    def larger(self, limit: int | None) -> PilotChoice | None:
        """For a training that did not keep the drop: another one to a larger size, or ``None`` to leave it at that."""
        if self.size is None or self.attempt == ATTEMPTS or (limit is not None and self.size >= limit):
            return None
        size = round(self.size * LARGER)
        return replace(self, size=size if limit is None else min(size, limit), attempt=self.attempt + 1)


Short = Callable[[Recipe, str, int, int], Outcome]
"""``short(recipe, what, index, count)``: what came of a training, the ``index``-th of about ``count``."""


def check(recipe: Recipe, evaluate: Any) -> None:
    """Refuse a recipe whose bits no pilot run can choose.

    Raises:
        RecipeError: no budget, or no evaluation.
    """
    if recipe.assign.bits != "auto":
        return
    if recipe.target is None and recipe.max_drop is None:
        raise RecipeError("assign.bits: auto needs a budget, target or max_drop, to compare bits at")
    if recipe.max_drop is not None and not recipe.pilots:
        raise RecipeError("assign.bits: auto with max_drop needs pilots, to compare bits in")
    if evaluate is None:
        raise RecipeError("assign.bits: auto needs evaluate: a function that gives a network's accuracy in percent")


def share_of(steps: int) -> float:
    """The length of a pilot run of a training of so many steps, relative to it."""
    return max(SHARE, min(1.0, STEPS / steps))


def choose(recipe: Recipe, short: Short, before: float | None, float_bytes: int, steps: int) -> PilotChoice:
    """Make pilot runs what the recipe leaves open.

    Args:
        before: percent of the float network that the user gave, on validation data. float_bytes: its size.
        steps: of the training.

    Raises:
        BudgetError: no bits reach the target.
    """
    method = method_of(recipe)
    if not (method.steerable and recipe.train.epochs):
        return PilotChoice()
    if recipe.max_drop is not None and recipe.pilots:
        assert before is not None  # max_drop needs evaluate
        return _Sizes(recipe, short, before - recipe.max_drop, float_bytes, share_of(steps)).choose()
    if recipe.assign.bits == "auto":
        return _bits(recipe, short, share_of(steps))
    return PilotChoice()


def _trial(recipe: Recipe, share: float, bits: int | None, target: int | None = None) -> Recipe:
    """The recipe of a short training; only bits, target and length differ from the main one's."""
    changes: dict[str, Any] = {} if target is None else {"target": target, "max_drop": None}
    if bits is not None:
        changes["assign"] = recipe.assign.model_dump() | {"bits": bits}
    train = recipe.train.model_dump() | {"epochs": recipe.train.epochs * share}
    rounds = min(recipe.rounds, max(4, round(recipe.rounds * share)))
    return recipe.updated(train=train, rounds=rounds, channels=None, ops={}, sweep=None, **changes)


def _bits(recipe: Recipe, short: Short, share: float) -> PilotChoice:
    """With a byte target, the bits of the most accurate file; of equal ones the fewest."""
    seen, why = [], ""
    for index, bits in enumerate(BITS):
        found = short(_trial(recipe, share, bits), f"with {bits} bits", index, len(BITS))
        if isinstance(found, str):
            why = found
        else:
            seen.append(PilotRun(bits, *found, kept=True))
    if not seen:
        raise BudgetError(why)
    return PilotChoice(max(seen, key=lambda r: (r.accuracy, -r.bits)).bits, None, tuple(seen))


def _rank(found: PilotRun) -> tuple[bool, int, float, int]:
    """Of files for one target: those that kept the accuracy, much smaller ones first, then accuracy and fewer bits."""
    size = -round(math.log(found.bytes) / math.log(CLOSE)) if found.kept else 0
    return found.kept, size, found.accuracy, -found.bits


class _Sizes:
    """With a drop of accuracy: ever smaller targets, until the accuracy is lost, then between them.

    Open bits are all compared until a file keeps the accuracy; after it only the best two, the second where the first
    fails. Bits whose file misses the accuracy and would not get any larger are given up.
    """

    def __init__(self, recipe: Recipe, short: Short, min_accuracy: float, float_bytes: int, share: float) -> None:
        self.recipe, self.short, self.min_accuracy, self.share = recipe, short, min_accuracy, share
        self.start = max(1, float_bytes // START)
        self.open = recipe.assign.bits == "auto"
        self.order: list[int | None] = list(BITS) if self.open else [None]
        self.given = bits_of(recipe)
        self.seen: list[PilotRun] = []
        self.index = 0
        self.count = recipe.pilots + (len(BITS) - 1 if self.open else 0)

    def choose(self) -> PilotChoice:
        limit = self.recipe.target_bytes
        search = SizeSearch(self.min_accuracy, limit, tries=self.recipe.pilots, close=CLOSE, down=STEP, up=1 / STEP)
        goal: float | None = self.start if limit is None else min(self.start, limit)
        best: PilotRun | None = None
        while goal is not None and self.order:
            found = self._at(round(goal), everything=best is None or not best.kept)
            if found is None:
                search.fail(goal)
                search.tries -= 1
            else:
                search.tell(found.bytes, found.accuracy, goal)
                best = found if best is None else max(best, found, key=lambda r: rank_key(r.kept, r.bytes, r.accuracy))
            goal = search.next()
        bits = (best.bits if best is not None else BITS[-1]) if self.open else None
        return PilotChoice(bits, best.bytes if best is not None and best.kept else None, tuple(self.seen))

    def _at(self, target: int, *, everything: bool) -> PilotRun | None:
        """The best file of this size, or ``None`` where no bits give one."""
        found: list[tuple[int | None, PilotRun]] = []
        for bits in self.order:
            words = f"{target:,} bytes" + ("" if bits is None else f" with {bits} bits")
            told = self.short(_trial(self.recipe, self.share, bits, target), words, self.index, self.count)
            self.index += 1
            if isinstance(told, str):
                continue
            found.append((bits, PilotRun(bits or self.given, *told, kept=told[1] >= self.min_accuracy)))
            self.seen.append(found[-1][1])
            if found[-1][1].kept and not everything:
                break
        if not found:
            return None
        found.sort(key=lambda pair: _rank(pair[1]), reverse=True)
        kept = any(one.kept for one in self.seen)
        tried = [bits for bits, one in found if kept or one.bytes >= FULL * target]
        if not kept:
            untold = [bits for bits in self.order if bits not in [b for b, _ in found]]  # no file of theirs is so small
            self.order = tried + untold
        elif self.open:  # the better ones first, those that were not tried behind them
            self.order = (tried + [bits for bits in self.order if bits not in tried])[:2]
        return found[0][1]
