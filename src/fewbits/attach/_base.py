"""A weight that is held as a difference: the tensor of another network, to which clusters or survivors are added."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.weights import Place


class Plus(nn.Module):
    """A parametrization behind what holds a weight: a difference in, the tensor that the network computes with out.

    Args:
        base: float32 tensor of the weight's shape.

    The sum is bit-equal to that of the plan entry with this base. In no state dict: who resumes has the base anyway.
    """

    base: Tensor

    def __init__(self, base: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", base, persistent=False)

    def forward(self, difference: Tensor) -> Tensor:
        return self.base + difference


@torch.no_grad()
def hold_difference(place: Place, base: Tensor) -> None:
    """What stands at a place becomes its difference to the base, in place; the tensor there is a parameter still."""
    place.tensor.sub_(base)


def base_at(place: Place) -> Tensor | None:
    """The base of what is held at a place, or ``None``."""
    if not parametrize.is_parametrized(place.module, place.attribute):
        return None
    chain = place.module.parametrizations[place.attribute]  # type: ignore[index]
    found = [part.base for part in chain if isinstance(part, Plus)]
    return found[0] if found else None


def plus_in(model: nn.Module) -> list[Plus]:
    """All of a network."""
    return [module for module in model.modules() if isinstance(module, Plus)]
