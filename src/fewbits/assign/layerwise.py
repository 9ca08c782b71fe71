"""Pruning to given rates, layer by layer: what a search over layers finds, as an assigner like any other."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.pruning import AlreadyPruned, Found, Terms, pruner
from fewbits.assign.selection import smallest
from fewbits.errors import RecipeError, SelectionError, did_you_mean


def layerwise(
    rates: Mapping[str, float], *, share: float = 1.0, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """In each layer the weights of smallest magnitude become zero, as many as the layer's own rate says.

    Of equal magnitudes the lower index falls first, as in :func:`fewbits.assign.global_magnitude`.

    Args:
        rates: sparsity, 0..1, by weight name or shell pattern (``"layer3.*"``); the first that matches counts. The
            number of zeros of a layer is ``rate * share`` of its weights, rounded.
        share: of the rates that is reached by now, 0..1, for a schedule.
        regrow, through: as for :func:`fewbits.assign.global_magnitude`.

    Raises:
        RecipeError: a rate outside 0..1. From ``update``: SelectionError for a pattern that matches no weight, and for
            a weight that no pattern matches; NonFiniteError, naming the layer.
    """
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise RecipeError(f"the rate of {name!r} must lie in 0..1, got {rate}")

    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, scores: Scores | None) -> Found:
        wanted = rates_of(weights, rates)
        found = {}
        for name, weight in weights.items():
            bar = already_pruned[name]
            zeros = max(round(wanted[name] * share * weight.numel()), 0 if bar is None else int(bar.sum()))
            (found[name],) = smallest([weight], zeros, already_pruned=[bar], names=[name])
        return weights, found

    return pruner(Terms(0.0, None, regrow, straight_through), cuts)


def rates_of(weights: Weights, rates: Mapping[str, float]) -> dict[str, float]:
    """The rate of every weight.

    Raises:
        SelectionError: a pattern that matches no weight, or a weight without a rate.
    """
    for pattern in rates if weights else ():
        if not any(fnmatchcase(name, pattern) for name in weights):
            raise SelectionError(f"the rate of {pattern!r} belongs to no weight{did_you_mean(pattern, weights)}")
    found = {}
    for name in weights:
        rate = next((rate for pattern, rate in rates.items() if fnmatchcase(name, pattern)), None)
        if rate is None:
            raise SelectionError(f"no rate for the weight {name!r}; to leave it and all other ones whole, add '*': 0")
        found[name] = rate
    return found
