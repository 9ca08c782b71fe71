"""What a recipe chooses for a run: assigner, scorer, rate controller; and whether they go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from fewbits import assign
from fewbits.errors import RecipeError, did_you_mean
from fewbits.measure import RelevanceScorer, Scorer, control
from fewbits.measure.relevance import rules_of
from fewbits.pipeline.methods import bits_of, method_of
from fewbits.pipeline.pruners import pruner_of, pruner_row
from fewbits.pipeline.rate_control import Fixed, MaxDrop, RateController, TargetSize
from fewbits.private import Diagonals
from fewbits.recipe import RENAMED, Recipe
from fewbits.task import Task
from fewbits.train.hold import AssignerAt
from fewbits.weights import parameters_of


def scored_by(recipe: Recipe) -> str | None:
    """The scores that the recipe's assigner or pruner reads, or ``None``."""
    pruned = recipe.prune is not None and pruner_row(recipe.prune).scores
    return recipe.measure.name if method_of(recipe).scores or pruned else None


def assigners(
    recipe: Recipe,
    original: nn.Module,
    bits: int | None = None,
    bases: Mapping[str, Tensor] | None = None,
    diagonals: Diagonals | None = None,
) -> AssignerAt:
    """The recipe's assigner, at any lambda and share of the training.

    Args:
        bits: what was chosen where the recipe says ``auto``.
        bases: of another network; the assigner is then one of differences to them.
        diagonals: of the network's packing, for a pruner of them.

    Raises:
        RecipeError: an option that the assigner does not take.
    """
    method, options = method_of(recipe), recipe.assign.options
    pruner_at = pruner_of(recipe, parameters_of(original), diagonals)
    name = recipe.assign.method
    for option in options:
        if option not in method.options:
            new = RENAMED.get(f"assign.options.{option}")
            hint = did_you_mean(option, method.options) if new is None else f"; it is called {new} now"
            known = (
                f"there are {', '.join(method.options)}"
                if method.options
                else f"it has none: assign={{method: {name}}}"
            )
            raise RecipeError(f"assign.options of {name}: no {option!r}{hint} ({known})")

    def at(lam: float, share: float) -> assign.Assigner:
        own = method.at(lam, bits or bits_of(recipe), options)
        if pruner_at is not None:
            own = pruner_at(share) if method.survivors else assign.chain(pruner_at(share), own)
        return assign.against(bases, own) if bases else own

    try:
        at(0.0, 0.0)  # impossible values are refused now
    except TypeError as error:
        raise RecipeError(f"assign.options of {name}: {error}") from None
    return at


def scorer(recipe: Recipe, model: nn.Module, task: Task) -> Scorer | None:
    """What measures the scores while ``model`` trains."""
    part, name = recipe.measure, scored_by(recipe)
    if name is None:
        return None
    if name != "relevance":
        return control(name, recipe.seed, model)
    rules = replace(rules_of(part.rules), precision=part.precision, attention=part.attention)
    return RelevanceScorer(
        model, rules, start=part.start, on=part.on, samples=part.samples, task=task, operations=part.operations,
        probe=part.probe,
    )  # fmt: skip


def controller(recipe: Recipe, before: float | None, size: int | None = None) -> RateController:
    """What chooses lambda.

    Args:
        before: the float network's accuracy on validation data, for ``max_drop``.
        size: bytes that were found to keep it.
    """
    if not method_of(recipe).steerable:
        return Fixed(0.0)
    if size is not None:
        return TargetSize(size, recipe.train.arrive)
    if recipe.max_drop is not None:
        assert before is not None
        return MaxDrop(before - recipe.max_drop, recipe.target_bytes)
    if recipe.target_bytes is not None:
        return TargetSize(recipe.target_bytes, recipe.train.arrive)
    return Fixed(0.05 if recipe.assign.lam is None else recipe.assign.lam)
