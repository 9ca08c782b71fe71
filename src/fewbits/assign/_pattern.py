"""N:M sparsity: of every M weights in a row along the inputs, N survive.

GPUs have instructions for 2:4; whether a runtime uses them is another question. Here it only says what is zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.pruning import Terms, already_pruned_of, init, masked, singles
from fewbits.assign.state import State
from fewbits.plan import Plan
from fewbits.recipe.notation import parse_pattern


def n_of_m(pattern: str = "2:4", *, regrow: bool = False, straight_through: float = 0.0) -> Assigner:
    """Of every M weights along the inputs (dimension 1; a vector's only one) the N of largest magnitude survive.

    Each output, and each place of a kernel, has groups of its own. If the inputs are no multiple of M, the last
    group is shorter and keeps N of what it has; so a depthwise convolution, with one input, stays whole. Of equal
    magnitudes the lower index falls.

    Args:
        pattern: ``"2:4"``, ``"1:4"``, ``"4:8"``, ...
        regrow, through: as for :func:`fewbits.assign.global_magnitude`.

    Raises:
        RecipeError: no pattern. NonFiniteError, SelectionError: from ``init`` and ``update``, naming the layer.
    """
    n, m = parse_pattern(pattern)
    terms = Terms(0.0, None, regrow, straight_through)

    @torch.no_grad()
    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        weights = singles(weights)
        already_pruned = already_pruned_of(weights, state)
        masks = {}
        for name, weight in weights.items():
            masks[name] = pattern_mask(weight, n, m)
            bar = already_pruned[name]
            if bar is not None:
                masks[name] &= ~bar
        return masked(weights, masks, state, terms, dict.fromkeys(weights, 0.0))

    return Assigner(init, update)


def pattern_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """True for the survivors, of the weight's shape."""
    magnitude = weight.detach().float().abs()
    if not magnitude.numel():
        return torch.ones_like(magnitude, dtype=torch.bool)
    shape = magnitude.shape
    if magnitude.dim() < 2:
        magnitude = magnitude.reshape(1, -1)
    rows = magnitude.movedim(1, -1)
    inputs = rows.shape[-1]
    m = min(m, max(1, inputs))  # one group per row, then; no use in padding it
    n = min(n, m)
    padded = F.pad(rows, (0, -inputs % m), value=-1.0)  # what is not there ranks last
    groups = padded.reshape(*padded.shape[:-1], -1, m)
    # Sorted from the last index on, the higher index stays in front among equals.
    order = groups.flip(-1).argsort(dim=-1, descending=True, stable=True)[..., :n]
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, m - 1 - order, True)
    mask = kept.reshape(padded.shape)[..., :inputs].movedim(-1, 1)
    return mask.reshape(shape).contiguous()
