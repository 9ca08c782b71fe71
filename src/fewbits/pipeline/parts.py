"""The parts of a run that a recipe chooses: assigner, scorer, objective, steering."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from fewbits import assign
from fewbits.errors import RecipeError, did_you_mean
from fewbits.graph.traced import TracedGraph
from fewbits.measure import RelevanceScorer, Scorer, control
from fewbits.measure.relevance import rules_of
from fewbits.pipeline.pruners import pruner_of
from fewbits.pipeline.rate_control import Fixed, MaxDrop, RateController, TargetSize
from fewbits.recipe import Recipe
from fewbits.train.hold import AssignerAt
from fewbits.weights import parameters_of


def measured(recipe: Recipe) -> str | None:
    """The scores that the recipe's assigner weighs with, or ``None``."""
    return recipe.measure.name if recipe.assign.method == "ecqx" else None


def assigners(recipe: Recipe, original: nn.Module, bits: int | None = None) -> AssignerAt:
    """The recipe's assigner, at any lambda and share of the training.

    Args:
        bits: what was chosen where the recipe says ``auto``.

    Raises:
        RecipeError: an option that the assigner does not take.
    """
    part = recipe.assign
    makers: dict[str, Callable[..., assign.Assigner]] = {
        "ecq": assign.ecq, "ecqx": assign.ecqx, "ternary": assign.ternary,
    }  # fmt: skip
    fixed = {} if part.method == "ternary" else {"bits": bits or (4 if part.bits == "auto" else part.bits)}
    pruner_at = pruner_of(recipe, parameters_of(original))

    def at(lam: float, share: float) -> assign.Assigner:
        if part.method == "none":
            return assign.nothing() if pruner_at is None else pruner_at(share)
        quantizer = makers[part.method](lam=lam, **fixed, **part.options)
        return quantizer if pruner_at is None else assign.chain(pruner_at(share), quantizer)

    if part.method != "none":
        taken = [name for name in inspect.signature(makers[part.method]).parameters if name not in ("lam", *fixed)]
        for name in part.options:
            if name not in taken:
                hint = did_you_mean(name, taken)
                raise RecipeError(f"assign.options of {part.method}: no {name!r}{hint} (there are {', '.join(taken)})")
    try:
        at(0.0, 0.0)  # impossible values are refused now
    except TypeError as error:
        raise RecipeError(f"assign.options of {part.method}: {error}") from None
    return at


def scorer(recipe: Recipe, model: nn.Module, traced: TracedGraph | None) -> Scorer | None:
    """What measures the scores while ``model`` trains; ``lens`` is its graph, for relevance."""
    part = recipe.measure
    if measured(recipe) is None:
        return None
    if traced is None:
        return control(part.name, recipe.seed)
    rules = replace(rules_of(part.rules), precision=part.precision)
    return RelevanceScorer(model, traced, rules, start=part.start, on=part.on, samples=part.samples)


def controller(recipe: Recipe, before: float | None, size: int | None = None) -> RateController:
    """What chooses lambda.

    Args:
        before: the float network's accuracy on validation data, for ``max_drop``.
        size: bytes that were found to keep it.
    """
    if size is not None:
        return TargetSize(size, recipe.train.arrive)
    if recipe.max_drop is not None:
        assert before is not None
        return MaxDrop(before - recipe.max_drop, recipe.target_bytes)
    if recipe.target_bytes is not None:
        return TargetSize(recipe.target_bytes, recipe.train.arrive)
    if recipe.assign.method == "none":
        return Fixed(0.0)
    return Fixed(0.05 if recipe.assign.lam is None else recipe.assign.lam)
