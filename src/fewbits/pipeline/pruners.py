"""The pruner that a recipe names, at every moment of the training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fewbits import assign
from fewbits.assign.magnitude import feather_theta
from fewbits.recipe import Recipe

PrunerAt = Callable[[float], assign.Assigner]
"""The pruner at a share of the training, 0 to 1."""


def pruner_of(recipe: Recipe, parameters: int) -> PrunerAt | None:
    """``None`` if the recipe does not prune.

    Args:
        parameters: of the whole network, for a sparsity that is a share of them.
    """
    part = recipe.prune
    if part is None:
        return None
    common: dict[str, Any] = {"regrow": part.regrow}
    if (
        recipe.assign.method == "none"
    ):  # floats need a gradient to come back; a quantizer's background weights have theirs
        common["straight_through"] = float(part.regrow)
    if part.pattern is not None:
        fixed = assign.n_of_m(part.pattern, **common)
        return lambda share: fixed
    rising = assign.rising(part.schedule, part.begin, part.end)
    if part.rates is not None:
        rates = part.rates
        return lambda share: assign.layerwise(rates, share=rising(share), **common)
    assert part.sparsity is not None  # the recipe sees to that
    final = part.sparsity
    common["of"] = parameters if part.over == "parameters" else None
    if part.method == "feather":
        common = {"of": common["of"], "min_kept": part.min_kept, "theta": feather_theta(final)}
    makers: dict[str, Callable[..., assign.Assigner]] = {
        "global-magnitude": partial(assign.global_magnitude, min_kept=part.min_kept),
        "lamp": assign.lamp,
        "erk": assign.erk,
        "uniform": assign.uniform,
        "feather": assign.feather,
        "random": partial(assign.random_pruning, seed=recipe.seed),
    }
    return lambda share: makers[part.method](final * rising(share), **common)
