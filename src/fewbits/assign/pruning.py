"""What all pruners share: how many weights fall, what a mask forbids, and which entry comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fewbits.assign import _grid as grid
from fewbits.assign._given import given
from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.selection import Cut, chosen
from fewbits.assign.state import LayerState, State
from fewbits.errors import RecipeError
from fewbits.plan import Entry, Masked, Plan, surviving

AlreadyPruned = Mapping[str, Tensor | None]
"""Per weight name, the weights that may not come back (bool), or ``None``."""

Found = tuple[Mapping[str, Tensor], Mapping[str, Cut]]
"""What is compared, and a cut of it, by weight name."""

Cuts = Callable[[Weights, AlreadyPruned, int, Scores | None], Found]
"""``cuts(weights, barred, count, scores)``; a pruner that reads scores always gets some."""


@dataclass(frozen=True)
class Terms:
    """How much is pruned, and whether it may come back.

    Attributes:
        sparsity: share of zeros, 0..1; ``count`` rounds to the nearest whole number of weights.
        of: how many numbers ``sparsity`` is a share of; ``None``: of all weights the assigner is given.
        regrow: whether a pruned weight may come back at a later update.
        through: share of its gradient that reaches a pruned weight.
        shrink: whether survivors come out of Feather's operator (:func:`fewbits.plan.surviving`).
    """

    sparsity: float
    of: int | None = None
    regrow: bool = False
    straight_through: float = 0.0
    shrink: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity <= 1:
            raise RecipeError(f"sparsity must lie in 0..1, got {self.sparsity}")
        if self.of is not None and self.of < 1:
            raise RecipeError(f"sparsity must be a share of at least one number, got {self.of}")
        if not 0 <= self.straight_through <= 1:
            raise RecipeError(f"the share of the gradient must lie in 0..1, got {self.straight_through}")

    def count(self, weights: int) -> int:
        """How many of ``weights`` fall; RecipeError if these are fewer."""
        count = round(self.sparsity * (weights if self.of is None else self.of))
        if count > weights:
            raise RecipeError(
                f"a sparsity of {self.sparsity:g} of {self.of:,} numbers needs {count:,} zeros, but only {weights:,} "
                "weights can be pruned"
            )
        return count


@dataclass(frozen=True, eq=False, kw_only=True)
class PrunedState(LayerState):
    """What pruners remember of a layer.

    Attributes:
        mask: see :attr:`LayerState.mask`; ``None`` before the first update, and where weights may come back.
    """

    mask: Tensor | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredState(PrunedState):
    """What pruners that read scores remember of a layer.

    Attributes:
        scores: float32 tensor of the weight's shape: those of the last update that had any; ``None`` before.
    """

    scores: Tensor | None = None


def pruner(terms: Terms, cuts: Cuts, *, reads_scores: bool = False) -> Assigner:
    """The assigner behind all unstructured pruners.

    Args:
        reads_scores: whether it needs scores; updates without any then go on with the last ones, which the state has.
    """

    @torch.no_grad()
    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        weights = singles(weights)
        already_pruned = already_pruned_of(weights, state)
        count = terms.count(sum(weight.numel() for weight in weights.values()))
        # Where nothing may come back, sparsity cannot fall either.
        count = max(count, sum(int(bar.sum()) for bar in already_pruned.values() if bar is not None))
        if reads_scores:
            state, scores = _with_scores(weights, scores, state)
        compared, found = cuts(weights, already_pruned, count, scores)
        masks = {name: ~chosen(compared[name], found[name], already_pruned[name]) for name in weights}
        shrink = {name: found[name].threshold if terms.shrink else 0.0 for name in weights}
        return masked(weights, masks, state, terms, shrink)

    return Assigner(partial(init, kind=ScoredState) if reads_scores else init, update)


@torch.no_grad()
def init(weights: Weights, kind: type[PrunedState] = PrunedState) -> State:
    """A state without a mask; refuses weights that are no finite floats."""
    return State({name: kind() for name in singles(weights)})


def singles(weights: Weights) -> dict[str, Tensor]:
    """The weights in float32 (the tensors themselves where they are); refuses what is not finite or no float."""
    return {name: grid.flat(name, weight)[0].view(weight.shape) for name, weight in weights.items()}


def _with_scores(weights: Weights, scores: Scores | None, state: State) -> tuple[State, Scores]:
    """The scores to prune by, the new ones or those of the last update, and a state that remembers them."""
    layers, found = {}, {}
    for name, weight in weights.items():
        layer = state[name]
        assert isinstance(layer, ScoredState)  # the state is of this pruner's own init
        if scores is not None:
            layer = replace(layer, scores=given(name, weight, scores))
        if layer.scores is None:
            raise RecipeError(
                f"pruning by scores needs those of {name!r} at its first update, and none were given: pass scores, "
                "or prune by magnitude (global_magnitude, lamp)"
            )
        layers[name], found[name] = layer, layer.scores
    return state.updated(layers), found


def already_pruned_of(weights: Weights, state: State) -> dict[str, Tensor | None]:
    """What the masks in the state forbid; SelectionError for a weight that the state lacks."""
    masks = {name: state[name].mask for name in weights}
    return {name: None if mask is None else ~mask.to(weights[name].device) for name, mask in masks.items()}


def masked(
    weights: Weights, masks: Mapping[str, Tensor], state: State, terms: Terms, shrink: Mapping[str, float]
) -> tuple[Plan, State]:
    """The plan of float32 weights with these masks, and the state that remembers them where they are for good."""
    entries: dict[str, Entry] = {}
    layers = {}
    for name, weight in weights.items():
        mask = masks[name]
        entries[name] = Masked(surviving(weight, mask, shrink[name]), mask, shrink[name], terms.straight_through)
        share = 1 - int(mask.sum()) / max(1, mask.numel())
        layer = state[name]
        assert isinstance(layer, PrunedState)  # of the pruner's own init
        layers[name] = replace(layer, mask=None if terms.regrow else mask, sparsity=share)
    return Plan(entries), state.updated(layers)


def rounded(shares: Sequence[float], limits: Sequence[int], total: int) -> list[int]:
    """Whole numbers near ``shares`` that add up to ``total``, none above its limit: largest remainders first.

    Raises:
        RecipeError: the limits add up to less.
    """
    if sum(limits) < total:
        raise RecipeError(f"{total:,} weights cannot be kept in layers of {sum(limits):,}")
    found = [min(limit, math.floor(share)) for share, limit in zip(shares, limits, strict=True)]
    order = sorted(range(len(shares)), key=lambda i: (found[i] - shares[i], i))
    step = 1 if sum(found) < total else -1
    while sum(found) != total:
        for i in order if step > 0 else reversed(order):
            if sum(found) == total:
                break
            if 0 <= found[i] + step <= limits[i]:
                found[i] += step
    return found
