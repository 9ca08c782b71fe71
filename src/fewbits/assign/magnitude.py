"""Magnitude pruning: one global threshold with an exact minimum per layer, and what else costs the same.

Sources: Global MP with minimum threshold (Gupta et al., arXiv 2209.14624), LAMP (Lee et al., ICLR 2021),
ERK (Evci et al., RigL, ICML 2020), Feather (Glentis Georgoulakis et al., BMVC 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.pruning import AlreadyPruned, Cuts, Found, Terms, pruner, rounded
from fewbits.assign.selection import smallest
from fewbits.errors import RecipeError
from fewbits.recipe.notation import min_kept_of


def global_magnitude(
    sparsity: float = 0.9,
    min_kept: int | str = 0,
    *,
    of: int | None = None,
    regrow: bool = False,
    straight_through: float = 0.0,
) -> Assigner:
    """Global MP: the weights of smallest magnitude of all layers together become zero.

    ``min_kept`` (the paper's minimum threshold, MT) keeps the sigma largest weights of each layer, and a smaller layer
    whole. It is exact: what it protects is left out of one common selection, so the number of zeros is
    right to the weight and all other layers still share one threshold. (The released code moves budgets between
    layers in a loop until the sum is close, and prunes each layer with a threshold of its own.) Equal magnitudes fall
    in the order of layers, then of indices.

    Args:
        sparsity: share of zeros, 0..1.
        min_kept: sigma, a number of weights or, as in the paper's tables, percent of all weights (``"0.02%"``).
        of: how many numbers ``sparsity`` is a share of; default: the weights that the assigner is given.
        regrow: whether a pruned weight may come back at a later update; its background weight needs ``through`` > 0
            or a straight-through quantizer behind (see :func:`fewbits.assign._chain`) to change.
        through: share of its gradient that reaches a pruned weight's background weight.

    Raises:
        RecipeError: an impossible option; from ``update``, a min_kept that leaves too few weights to prune.
        NonFiniteError, SelectionError: from ``init`` and ``update``, naming the layer.
    """
    return pruner(Terms(sparsity, of, regrow, straight_through), _global_cuts(min_kept))


def feather(
    sparsity: float = 0.9, min_kept: int | str = 0, *, of: int | None = None, theta: float | None = None
) -> Assigner:
    """Feather: Global MP with a smooth threshold and a straight-through gradient; masks may change at every update.

    The survivors come out of ``sign(w) (|w|**3 - t**3)**(1/3)``, in training and in the file alike. (The released code
    finalises with another operator than it trains with.)

    Args:
        sparsity, min_kept, of: as for :func:`global_magnitude`.
        theta: share of its gradient that reaches a pruned weight; default: :func:`feather_theta`.

    Raises:
        RecipeError, NonFiniteError, SelectionError: as for :func:`global_magnitude`.
    """
    theta = feather_theta(sparsity) if theta is None else theta
    return pruner(Terms(sparsity, of, True, theta, shrink=True), _global_cuts(min_kept))


def feather_theta(sparsity: float) -> float:
    """The released code's share of the gradient, by the sparsity that is meant (not the one reached so far)."""
    return 1.0 if sparsity <= 0.95 else 0.5


def lamp(
    sparsity: float = 0.9, *, of: int | None = None, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """LAMP: one global threshold on ``w_u**2 / sum of w_v**2 over the v of its layer with |w_v| >= |w_u|``.

    The largest weight of a layer scores 1, the maximum, so a layer loses its last weight after all others only.
    Among equal magnitudes the lower index counts as the smaller.

    Args:
        sparsity, of, regrow, through: as for :func:`global_magnitude`.
    """

    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, _: Scores | None) -> Found:
        compared = {name: lamp_scores(w, already_pruned[name]) for name, w in weights.items()}
        return joint(compared, already_pruned, count)

    return pruner(Terms(sparsity, of, regrow, straight_through), cuts)


def random_pruning(
    sparsity: float = 0.9, seed: int = 0, *, of: int | None = None, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """Random weights fall, the same ones for the same seed: the control that every criterion must beat."""

    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, _: Scores | None) -> Found:
        generator = torch.Generator().manual_seed(seed)
        drawn = {n: torch.rand(w.shape, generator=generator).to(w.device) for n, w in weights.items()}
        return joint(drawn, already_pruned, count)

    return pruner(Terms(sparsity, of, regrow, straight_through), cuts)


def uniform(
    sparsity: float = 0.9, *, of: int | None = None, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """The same sparsity in every layer, by magnitude; remainders go to layers so that the total is exact."""
    return _layerwise(Terms(sparsity, of, regrow, straight_through), lambda weight: 1.0)


def erk(
    sparsity: float = 0.9, *, of: int | None = None, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """ERK: a layer's density is proportional to ``sum of its dimensions / product of its dimensions``, by magnitude.

    Layers whose density would exceed 1 stay whole, and the others share what is left.
    """
    return _layerwise(
        Terms(sparsity, of, regrow, straight_through),
        lambda weight: sum(weight.shape) / max(1, math.prod(weight.shape)) or 1.0,
    )


def lamp_scores(weight: Tensor, already_pruned: Tensor | None = None) -> Tensor:
    """LAMP's score of every weight, float64, of the weight's shape; barred weights count as zero."""
    squares = weight.detach().to(torch.float64).square().reshape(-1)
    if already_pruned is not None:
        squares = squares.masked_fill(already_pruned.reshape(-1), 0.0)
    ordered, order = squares.sort(stable=True)
    larger = ordered.flip(0).cumsum(0).flip(0)  # itself and all that rank above
    scores = torch.zeros_like(squares)
    scores[order] = torch.where(ordered > 0, ordered / larger, 0.0)
    return scores.view(weight.shape)


def densities(weights: Weights, raw: Callable[[Tensor], float], kept: int) -> dict[str, float]:
    """How many weights each layer keeps (fractions allowed): in proportion to ``raw`` times its size, at most all.

    Layers that this would make more than dense are dense, and the rest is shared out again (ERK's rule).
    """
    sizes = {name: weight.numel() for name, weight in weights.items()}
    share = {name: raw(weight) * sizes[name] for name, weight in weights.items()}
    dense: set[str] = set()
    while True:
        left = kept - sum(sizes[name] for name in dense)
        total = sum(share[name] for name in weights if name not in dense)
        factor = left / total if total else 0.0
        full = {n for n in weights if n not in dense and factor * share[n] > sizes[n]}
        if not full:
            break
        dense |= full
    return {name: float(sizes[name]) if name in dense else factor * share[name] for name in weights}


def _layerwise(terms: Terms, raw: Callable[[Tensor], float]) -> Assigner:
    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, _: Scores | None) -> Found:
        sizes = [weight.numel() for weight in weights.values()]
        out = [0 if (bar := already_pruned[name]) is None else int(bar.sum()) for name in weights]
        wanted = densities(weights, raw, sum(sizes) - count)
        room = [size - gone for size, gone in zip(sizes, out, strict=True)]
        kept = rounded(list(wanted.values()), room, sum(sizes) - count)
        found = {}
        for (name, weight), size, keep in zip(weights.items(), sizes, kept, strict=True):
            (found[name],) = smallest([weight], size - keep, already_pruned=[already_pruned[name]], names=[name])
        return weights, found

    return pruner(terms, cuts)


def _global_cuts(min_kept: int | str) -> Cuts:
    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, _: Scores | None) -> Found:
        sizes = [weight.numel() for weight in weights.values()]
        sigma = min_kept_of(min_kept, sum(sizes))
        limits = [size - min(size, sigma) for size in sizes]
        if count > sum(limits):
            kept = sum(sizes) - sum(limits)
            raise RecipeError(
                f"a min_kept of {sigma:,} weights keeps {kept:,} of the {sum(sizes):,} weights ({len(sizes)} layers "
                f"keep their {sigma:,} largest each, smaller ones all), so at most {sum(limits):,} can be pruned; "
                f"{count:,} were asked for: lower the sparsity or min_kept"
            )
        return joint(weights, already_pruned, count, limits)

    return cuts


def joint(
    compared: Mapping[str, Tensor], already_pruned: AlreadyPruned, count: int, limits: list[int] | None = None
) -> Found:
    """One threshold over all layers."""
    names = list(compared)
    cuts = smallest(
        list(compared.values()), count, limits=limits, already_pruned=[already_pruned[n] for n in names], names=names
    )
    return compared, dict(zip(names, cuts, strict=True))
