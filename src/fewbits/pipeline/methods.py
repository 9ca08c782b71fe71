"""One row per way to say what a weight becomes; what a recipe names is looked up here and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fewbits import assign
from fewbits.errors import RecipeError, did_you_mean
from fewbits.int8.affine_grid import affine
from fewbits.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """A row: an assigner, how its plan is held, and what it needs.

    Attributes:
        make: the assigner; called with ``bits`` and ``lam`` if it takes them, and with the recipe's ``assign.options``.
        steerable: whether its file shrinks with ``lam``, so that a budget can find it.
        scores: whether it reads scores (the recipe's ``measure``).
        clusters: whether it makes clusters, to which ``train.damping`` moves weights.
        settles: whether its assignment stays at the end of the training, while floats go on.
        open_bits: whether ``bits: auto`` may choose its bits. bits: the only bit width it has, if there is one.
        activations: whether activations become integers as well: the network then trains in its integer form.
        survivors: whether what a pruner leaves goes on as it is, floats.
        precisions: what layers may multiply in while training.
    """

    make: Callable[..., assign.Assigner]
    steerable: bool = True
    scores: bool = False
    clusters: bool = True
    settles: bool = True
    open_bits: bool = False
    bits: int | None = None
    activations: bool = False
    survivors: bool = False
    precisions: tuple[str, ...] = ("float32", "bfloat16")

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The options that a recipe may give."""
        taken = inspect.signature(self.make).parameters
        return {name: taken[name] for name in taken if name not in ("lam", "bits")}

    def at(self, lam: float, bits: int, options: dict[str, Any]) -> assign.Assigner:
        """The assigner for a lambda.

        Raises:
            RecipeError: an impossible option.
        """
        known = inspect.signature(self.make).parameters
        given = {name: value for name, value in {"lam": lam, "bits": self.bits or bits}.items() if name in known}
        return self.make(**given, **options)


METHODS: dict[str, Method] = {
    "ecqx": Method(assign.ecqx, scores=True, open_bits=True),
    "ecq": Method(assign.ecq, open_bits=True),
    "ternary": Method(assign.ternary, bits=2),
    "int8": Method(
        affine, bits=8, steerable=False, clusters=False, settles=False, activations=True,
        precisions=("float32",),  # bfloat16 cannot tell an activation's 256 levels apart
    ),
    "none": Method(assign.nothing, steerable=False, clusters=False, survivors=True),
}  # fmt: skip
"""By the name that a recipe gives in ``assign.method``. A row more is a method more."""


def method_of(recipe: Recipe) -> Method:
    """The row of a recipe.

    Raises:
        RecipeError: no such method.
    """
    name = recipe.assign.method
    if name not in METHODS:
        raise RecipeError(f"assign.method: no {name!r}{did_you_mean(name, METHODS)} (there are {', '.join(METHODS)})")
    return METHODS[name]


def integer_form_of(recipe: Recipe) -> bool:
    """Whether the network is written in its integer form."""
    return recipe.activations is not None or method_of(recipe).activations


def trained_as_integers(recipe: Recipe) -> bool:
    """Whether the network trains in its integer form, too; clusters are trained as they are."""
    return integer_form_of(recipe) and not method_of(recipe).clusters


def bits_of(recipe: Recipe) -> int:
    """The bit width of the grid; where none is given, or it is open, 4."""
    return method_of(recipe).bits or (recipe.assign.bits if isinstance(recipe.assign.bits, int) else 4)
