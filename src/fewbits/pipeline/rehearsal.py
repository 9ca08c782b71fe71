"""How many bits: a short training to the same budget with each, and the best of them is taken.

What the first assignment distorts does not tell it: by the squared error, weighted by curvature or not, networks
would get other bits than those that trained best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fewbits.errors import BudgetError, RecipeError
from fewbits.recipe import Recipe
from fewbits.report.report import Rehearsal, Report

BITS = (2, 3, 4, 5)
SHARE = 0.25  # of the training, each; with a tenth, small networks got the wrong bits


def check(recipe: Recipe, evaluate: Any) -> None:
    """Refuse a recipe whose bits no rehearsal can choose.

    Raises:
        RecipeError: no budget, or no evaluation.
    """
    if recipe.assign.bits != "auto":
        return
    if recipe.target is None and recipe.max_drop is None:
        raise RecipeError("assign.bits: auto needs a budget, target or max_drop, to compare bits at")
    if evaluate is None:
        raise RecipeError("assign.bits: auto needs evaluate: a function that gives a network's accuracy in percent")


def rehearse(recipe: Recipe, short: Callable[[Recipe, int], Report]) -> tuple[int, tuple[Rehearsal, ...]]:
    """The bits to train with, and what was seen.

    With a byte target the most accurate file wins, with a drop of accuracy the smallest that keeps it (the most
    accurate if none does); of equal ones the fewest bits.

    Args:
        short: ``short(recipe, index) -> report`` of a run; only the recipe differs from the main one.

    Raises:
        BudgetError: no bits reach the target.
    """
    seen: list[Rehearsal] = []
    failed: BudgetError | None = None
    for index, bits in enumerate(BITS):
        train = recipe.train.model_dump() | {"epochs": recipe.train.epochs * SHARE}
        assign = recipe.assign.model_dump() | {"bits": bits}
        trial = recipe.updated(assign=assign, train=train, rounds=min(4, recipe.rounds), channels=None, sweep=None)
        try:
            report = short(trial, index)
        except BudgetError as error:
            failed = error
            continue
        assert report.accuracy_after is not None
        kept = report.met is not False
        seen.append(Rehearsal(bits, report.file_bytes, report.accuracy_after, kept))
    if not seen:
        assert failed is not None
        raise failed
    if recipe.max_drop is not None and any(r.kept for r in seen):
        best = min((r for r in seen if r.kept), key=lambda r: (r.bytes, r.bits))
    else:
        best = max(seen, key=lambda r: (r.accuracy, -r.bits))
    return best.bits, tuple(seen)
