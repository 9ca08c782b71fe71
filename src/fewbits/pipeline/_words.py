"""What a recipe does, in a few words."""

from __future__ import annotations

from fewbits.pipeline.methods import integer_form_of, method_of
from fewbits.pipeline.parts import scored_by
from fewbits.recipe import Recipe


def words_of(recipe: Recipe) -> str:
    """The recipe's methods in a few words."""
    parts = []
    prune, channels = recipe.prune, recipe.channels
    if channels is not None:
        measured = ", layers measured" if channels.measured else ""
        parts.append(f"{channels.left:g} of {channels.over} by {channels.criterion}{measured}")
    if recipe.ops:
        parts.append(f"{' and '.join(recipe.ops)} swapped")
    if prune is not None:
        min_kept = f" keeping at least {prune.min_kept}" if prune.min_kept else ""
        amount = prune.pattern or prune.sparsity or f"with {len(prune.rates or {})} rates"
        parts.append(f"{prune.method} {amount}{min_kept}")
    row = method_of(recipe)
    if not row.survivors:
        scored = scored_by(recipe)
        parts.append(recipe.assign.method + (f" with {scored}" if row.scores and scored != "relevance" else ""))
    if recipe.activations is not None and not row.activations:
        parts.append("int8 activations")
    if recipe.train.distill and not parts:
        parts.append("distilled")
    words = " + ".join(parts)
    if recipe.train.epochs:
        return words
    return words + (", calibrated only" if integer_form_of(recipe) else ", without training")
