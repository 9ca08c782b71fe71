"""Pruned and then quantized: a mask over the assignment of another assigner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.state import LayerState, State
from fewbits.errors import RecipeError
from fewbits.plan import Affine, Clustered, Entry, Masked, Plan


@dataclass(frozen=True, eq=False, kw_only=True)
class ChainState(LayerState):
    """The records of both assigners of a chain; what is learnt is the quantizer's."""

    pruner: LayerState
    quantizer: LayerState

    @property
    def mask(self) -> Tensor | None:
        return self.pruner.mask

    def with_step(self, name: str, step: float) -> Self:
        return replace(self, quantizer=self.quantizer.with_step(name, step))

    def with_codebook(self, name: str, codebook: tuple[float, ...]) -> Self:
        return replace(self, quantizer=self.quantizer.with_codebook(name, codebook))


def chain(pruner: Assigner, quantizer: Assigner) -> Assigner:
    """Prune, then assign the survivors to levels; pruned weights have level zero, whatever that costs.

    The quantizer sees zeros in place of the pruned weights, so its statistics are those of the pruned network, and it
    may put further weights to zero. Whether pruned weights may come back is the pruner's ``regrow``.

    Args:
        pruner: one of :func:`~fewbits.assign.global_magnitude`, ``lamp``, ``erk``, ``uniform``, ``n_of_m``, ...
        quantizer: :func:`~fewbits.assign.ecq`, ``ecqx``, ``ternary`` or :func:`fewbits.int8.affine`.

    Raises:
        RecipeError: from ``update``: the first gives no masks or is ``feather``, or the second gives no levels.
    """

    @torch.no_grad()
    def init(weights: Weights) -> State:
        first, second = pruner.init(weights), quantizer.init(weights)
        return State({name: ChainState(pruner=first[name], quantizer=second[name]) for name in weights})

    @torch.no_grad()
    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        pruned, first = pruner.update(weights, scores, _part(state, weights, "pruner"))
        left = {}
        for name, weight in weights.items():
            entry = pruned[name]
            if not isinstance(entry, Masked):
                raise RecipeError("the first assigner of a chain must prune")
            if entry.shrink > 0:
                raise RecipeError("feather shrinks what survives, clusters cannot: chain global_magnitude instead")
            left[name] = torch.where(entry.mask, weight.detach(), 0.0).to(weight.dtype)
        plan, second = quantizer.update(left, scores, _part(state, weights, "quantizer"))
        entries: dict[str, Entry] = {}
        layers = {}
        for name, entry in plan.items():
            mask = pruned.compressed[name].kept
            if not isinstance(entry, Clustered | Affine):
                raise RecipeError("the second assigner of a chain must give levels: clusters or integers")
            levels = entry.levels.masked_fill(~mask, 0)
            entries[name] = replace(entry, levels=levels)
            share = 1 - int(levels.count_nonzero()) / max(1, levels.numel())
            layers[name] = ChainState(pruner=first[name], quantizer=second[name], sparsity=share)
        return Plan(entries), state.updated(layers)

    return Assigner(init, update)


def _part(state: State, weights: Weights, part: str) -> State:
    """The records of one of the two assigners."""
    return State({name: getattr(state[name], part) for name in weights})
