"""Whole groups of weights fall together, such as the diagonals that encrypted products are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.pruning import Terms, already_pruned_of, init, masked, singles
from fewbits.assign.state import State
from fewbits.errors import RecipeError, SelectionError
from fewbits.plan import Plan

TURNS = 4  # of choosing rows by columns and columns by rows

Groups = Mapping[str, Tensor] | Callable[[str, Tensor], Tensor]
"""By a weight's name, or from it and the weight: the number of each weight's group, int64 of the weight's shape."""

Lines = Mapping[str, Tensor]
"""By a weight's name, int64 [groups, 2]: the row and the column of each group, by its number."""


def grouped(
    sparsity: float,
    groups: Groups,
    *,
    lines: Lines | None = None,
    least: int = 1,
    regrow: bool = False,
    straight_through: float = 0.0,
) -> Assigner:
    """Of each layer's groups the given share falls, those of the smallest root mean square; the lower number at ties.

    Group pruning as in Artemis (arXiv 2310.01664), where groups are the diagonals of a packing.

    Args:
        sparsity: share of a layer's groups, rounded to the nearest whole number.
        groups: of each layer, such as :func:`fewbits.private.diagonal_groups` gives.
        lines: survivors of a layer that has some lie on few rows and columns: as few as can hold them, the strongest
            that are found. :class:`fewbits.private.Diagonals` has those that cost a rotation each.
        least: so many groups of a layer stay. regrow, straight_through: as for
            :func:`fewbits.assign.global_magnitude`.

    Raises:
        RecipeError: an impossible share. NonFiniteError, SelectionError: from ``init`` and ``update``, by the layer.
    """
    terms = Terms(sparsity, None, regrow, straight_through)
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
            masks[name] = group_mask(weight, number, terms.sparsity, least, None if lines is None else lines.get(name))
            if bar is not None:
                masks[name] &= ~bar
        return masked(weights, masks, state, terms, dict.fromkeys(weights, 0.0))

    return Assigner(begin, update)


def group_mask(weight: Tensor, number: Tensor, sparsity: float, least: int, lines: Tensor | None = None) -> Tensor:
    """True for the survivors, of the weight's shape.

    Raises:
        SelectionError: a group without lines.
    """
    if not weight.numel():
        return torch.ones_like(weight, dtype=torch.bool)
    flat = number.flatten()
    names, place = torch.unique(flat, return_inverse=True)
    sizes = torch.bincount(place, minlength=len(names))
    power = torch.zeros(len(names), dtype=torch.float64, device=weight.device)
    power.index_add_(0, place, weight.detach().flatten().double() ** 2)
    falling = min(round(sparsity * len(names)), max(0, len(names) - least))
    power = power / sizes
    if lines is not None and int((power > 0).sum()) > len(names) - falling:
        if lines.dim() != 2 or lines.shape[1] != 2 or len(lines) <= int(names[-1]):
            raise SelectionError(
                f"lines of shape {tuple(lines.shape)} are not two for each of {int(names[-1]) + 1} groups"
            )
        power = power.masked_fill(~on_few_lines(power, lines.to(names.device)[names], len(names) - falling), -1.0)
    order = power.argsort(stable=True)
    kept = torch.ones(len(names), dtype=torch.bool, device=weight.device)
    kept[order[:falling]] = False
    return kept[place].reshape(weight.shape)


def on_few_lines(power: Tensor, lines: Tensor, count: int) -> Tensor:
    """Groups on rows and columns that hold ``count`` of them: as few lines as possible, then as much power.

    Rows and columns are chosen in turns: the strongest rows among the columns chosen, then the other way round. Those
    of number 0 always are, since a rotation by nothing is none.

    Args:
        power: float64 [groups]. lines: int64 [groups, 2].

    Returns:
        bool [groups], with ``count`` or more that are true.
    """
    (rows, row), (columns, column) = (torch.unique(lines[:, axis], return_inverse=True) for axis in (0, 1))
    table = power.new_zeros(len(rows), len(columns)).index_put_((row, column), power, accumulate=True)
    there = torch.zeros_like(table).index_put_((row, column), torch.ones_like(power), accumulate=True)
    free = rows == 0, columns == 0
    fewest = math.ceil(2 * math.sqrt(count / max(1, int(there.max()))))
    for together in range(fewest, len(rows) + len(columns) + 1):
        best, most = None, -1.0
        for height in range(max(0, together - len(columns)), min(together, len(rows)) + 1):
            if height * (together - height) * int(there.max()) < count:
                continue
            up, across = _strongest(table, height, together - height, free)
            if float(there[up][:, across].sum()) >= count and float(table[up][:, across].sum()) > most:
                most, best = float(table[up][:, across].sum()), (up, across)
        if best is not None:
            return torch.isin(row, best[0]) & torch.isin(column, best[1])
    raise AssertionError("all lines hold all groups")


def _strongest(table: Tensor, height: int, width: int, free: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Rows and columns whose common power is large: each the best for the other, after those that cost nothing."""
    up = torch.arange(len(table), device=table.device)
    across = up[:0]
    for _ in range(TURNS):
        across = table[up].sum(0).masked_fill(free[1], torch.inf).argsort(descending=True, stable=True)[:width]
        up = table[:, across].sum(1).masked_fill(free[0], torch.inf).argsort(descending=True, stable=True)[:height]
    return up, across
