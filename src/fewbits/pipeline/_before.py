"""What a network could not be compressed by, found before it is trained."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from fewbits.ops.choose import called
from fewbits.ops.places import places
from fewbits.ops.swap import swap
from fewbits.pipeline._run import base_for
from fewbits.pipeline.check import check_based, check_call
from fewbits.pipeline.parts import assigners
from fewbits.pipeline.pruners import check_last, pruner_of, pruner_row
from fewbits.recipe import Recipe
from fewbits.weights import parameters_of, select


def check_network(recipe: Recipe, model: nn.Module, inputs: Any, *, evaluate: Any = None, teacher: Any = None) -> None:
    """Refuse what :func:`fewbits.compress` would refuse of this recipe and network once it is trained.

    Args:
        inputs: of a batch; they are read for operations that are to be swapped.

    Raises:
        RecipeError, SelectionError, FileError: as there.
    """
    check_call(recipe, evaluate, teacher)
    check_based(recipe, base_for(recipe.base, model))
    weights = select(model, recipe.select.include, recipe.select.exclude)
    assigners(recipe, model)  # its options
    if recipe.prune is not None and not (pruner_row(recipe.prune).packed or pruner_row(recipe.prune).scores):
        pruner_at = pruner_of(recipe, parameters_of(model))
        assert pruner_at is not None
        check_last(pruner_at, weights, None)
    if recipe.ops:
        net = copy.deepcopy(model).eval()
        swap(net, {})
        known = places(net, [inputs])
        for name in recipe.ops:
            called(name, known)
