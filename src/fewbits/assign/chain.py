"""Pruned and then quantized: a mask over the assignment of another assigner."""

from __future__ import annotations

from dataclasses import replace

import torch

from fewbits.assign.assigner import Assigner, Scores, State, Weights
from fewbits.errors import RecipeError
from fewbits.plan import Affine, Clustered, Entry, Masked, Plan


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
        return State({name: replace(second[name], mask=first[name].mask) for name in weights})

    @torch.no_grad()
    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        pruned, after = pruner.update(weights, scores, state)
        left = {}
        for name, weight in weights.items():
            entry = pruned[name]
            if not isinstance(entry, Masked):
                raise RecipeError("the first assigner of a chain must prune")
            if entry.shrink > 0:
                raise RecipeError("feather shrinks what survives, clusters cannot: chain global_magnitude instead")
            left[name] = torch.where(entry.mask, weight.detach(), 0.0).to(weight.dtype)
        plan, after = quantizer.update(left, scores, after)
        entries: dict[str, Entry] = {}
        layers = {}
        for name, entry in plan.items():
            mask = pruned.compressed[name].kept
            if not isinstance(entry, Clustered | Affine):
                raise RecipeError("the second assigner of a chain must give levels: clusters or integers")
            levels = entry.levels.masked_fill(~mask, 0)
            entries[name] = replace(entry, levels=levels)
            share = 1 - int(levels.count_nonzero()) / max(1, levels.numel())
            layers[name] = replace(after[name], sparsity=share)
        return Plan(entries), after.updated(layers)

    return Assigner(init, update)
