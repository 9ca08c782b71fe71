"""Rules that perturb weights and compare losses: what is held follows its background weight while they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fewbits.attach.attach import background, held


@contextmanager
def perturbable(model: nn.Module) -> Iterator[None]:
    """Inside, a background weight that moves takes the attached tensor along, by as much; levels and masks stay.

    So losses of perturbed weights differ as much as straight-through gradients say: without this, levels hide what a
    zeroth-order rule does (SPSA, MeZO). A survivor's value is of its background weight anyway; a pruned weight's moves
    by its straight-through share. Gradients and forward-mode derivatives need no such block.

    The network computes what it did until a weight moves away from where it was on entry, and again on leaving. An
    inner block changes nothing. Costs a copy of the background weights.
    """
    weights = background(model)
    here = [(holder, weights[name]) for name, holder in held(model).items() if holder.origin is None]
    for holder, weight in here:
        holder.origin = weight.detach().clone()
    try:
        yield
    finally:
        for holder, _ in here:
            holder.origin = None
