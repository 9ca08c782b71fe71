"""Whole groups of weights fall together, such as the diagonals that encrypted products are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.pruning import Terms, already_pruned_of, init, masked, singles
from fewbits.assign.state import State
from fewbits.errors import RecipeError, SelectionError
from fewbits.plan import Plan

Groups = Mapping[str, Tensor] | Callable[[str, Tensor], Tensor]
"""By a weight's name, or from it and the weight: the number of each weight's group, int64 of the weight's shape."""


def grouped(sparsity: float, groups: Groups, *, least: int = 1, regrow: bool = False) -> Assigner:
    """Of each layer's groups the given share falls, those of the smallest root mean square; the lower number at ties.

    Group pruning as in Artemis (arXiv 2310.01664), where groups are the diagonals of a packing.

    Args:
        sparsity: share of a layer's groups, rounded to the nearest whole number.
        groups: of each layer, such as :func:`fewbits.private.diagonal_groups` gives.
        least: so many groups of a layer stay. regrow: as for :func:`fewbits.assign.global_magnitude`.

    Raises:
        RecipeError: an impossible share. NonFiniteError, SelectionError: from ``init`` and ``update``, by the layer.
    """
    terms = Terms(sparsity, None, regrow)
    if least < 0:
        raise RecipeError(f"at least 0 groups of a layer stay, got {least}")

    def of(name: str, weight: Tensor) -> Tensor:
        if callable(groups):
            found = groups(name, weight)
        elif name in groups:
            found = groups[name]
        else:
            raise SelectionError(f"{name} has no groups; there are those of {', '.join(groups) or 'no weight'}")
        if found.shape != weight.shape or found.is_floating_point() or (found.numel() and int(found.min()) < 0):
            shape = tuple(found.shape)
            raise SelectionError(f"{name} has shape {tuple(weight.shape)}, its groups {shape} or no numbers from 0")
        return found.to(weight.device, torch.int64)

    def begin(weights: Weights) -> State:
        for name, weight in weights.items():
            of(name, weight)
        return init(weights)

    @torch.no_grad()
    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        weights = singles(weights)
        already_pruned = already_pruned_of(weights, state)
        masks = {}
        for name, weight in weights.items():
            number, bar = of(name, weight), already_pruned[name]
            masks[name] = group_mask(weight, number, terms.sparsity, least)
            if bar is not None:
                masks[name] &= ~bar
        return masked(weights, masks, state, terms, dict.fromkeys(weights, 0.0))

    return Assigner(begin, update)


def group_mask(weight: Tensor, number: Tensor, sparsity: float, least: int) -> Tensor:
    """True for the survivors, of the weight's shape."""
    if not weight.numel():
        return torch.ones_like(weight, dtype=torch.bool)
    flat = number.flatten()
    names, place = torch.unique(flat, return_inverse=True)
    sizes = torch.bincount(place, minlength=len(names))
    power = torch.zeros(len(names), dtype=torch.float64, device=weight.device)
    power.index_add_(0, place, weight.detach().flatten().double() ** 2)
    falling = min(round(sparsity * len(names)), max(0, len(names) - least))
    order = (power / sizes).argsort(stable=True)
    kept = torch.ones(len(names), dtype=torch.bool, device=weight.device)
    kept[order[:falling]] = False
    return kept[place].reshape(weight.shape)
