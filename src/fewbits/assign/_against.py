"""Differences in place of weights: what an assigner decides of them is added to another network's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.state import State
from fewbits.errors import RecipeError
from fewbits.plan import Affine, Entry, Plan


def against(bases: Mapping[str, Tensor], assigner: Assigner) -> Assigner:
    """``assigner`` for differences to ``bases``: its entries carry their base, and are else what they were.

    The weights that it is given are the differences already, as :func:`fewbits.attach.background` gives them, so that
    steps, rates, zeros and masks are about these. A tensor without a base is a weight as ever. A network that is its
    base still, and has no differences to choose a step by, gets that of differences of a sixteenth of its weights.

    Args:
        bases: float32 tensors by name.

    Raises:
        RecipeError: from ``update``: integers with scales, which are no differences.
    """

    def init(weights: Weights) -> State:
        return assigner.init({name: _started(weight, bases.get(name)) for name, weight in weights.items()})

    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        plan, state = assigner.update(weights, scores, state)
        return Plan({name: _based(name, entry, bases.get(name)) for name, entry in plan.items()}), state

    return Assigner(init, update)


def _started(weight: Tensor, base: Tensor | None) -> Tensor:
    """What steps are chosen by."""
    return weight if base is None or bool(weight.any()) else base.to(weight) / 16


def _based(name: str, entry: Entry, base: Tensor | None) -> Entry:
    if base is None or tuple(base.shape) != entry.shape:  # rows of a sample, by which sizes are estimated
        return entry
    if isinstance(entry, Affine):
        raise RecipeError(f"{name}: integers with scales are no differences to a base: take ecq or ecqx, or no base")
    return replace(entry, base=base)
