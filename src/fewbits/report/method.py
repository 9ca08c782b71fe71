"""What a recipe does, in a few words."""

from __future__ import annotations

from fewbits.recipe import Recipe


def method_of(recipe: Recipe) -> str:
    """The recipe's methods in a few words."""
    parts = []
    prune, channels = recipe.prune, recipe.channels
    if channels is not None:
        measured = ", layers measured" if channels.measured else ""
        parts.append(f"{channels.left:g} of {channels.over} by {channels.criterion}{measured}")
    if prune is not None:
        min_kept = f" keeping at least {prune.min_kept}" if prune.min_kept else ""
        amount = prune.pattern or prune.sparsity or f"with {len(prune.rates or {})} rates"
        parts.append(f"{prune.method} {amount}{min_kept}")
    method = recipe.assign.method
    if method == "ecqx" and recipe.measure.name != "relevance":
        parts.append(f"ecqx with {recipe.measure.name}")
    elif method == "int8" and not recipe.train.epochs:
        parts.append("int8, calibrated only")
    elif method != "none":
        parts.append(method)
    return " + ".join(parts)
