"""Adam (Kingma and Ba 2015) for tensors that a rule learns and the network does not have."""

from __future__ import annotations

import torch
from torch import Tensor


def fresh(value: Tensor) -> dict[str, Tensor]:
    """The state of a tensor that has taken no step."""
    zero = torch.zeros_like(value)
    return {"value": value, "mean": zero, "square": zero.clone(), "steps": torch.zeros(())}


@torch.no_grad()
def stepped(state: dict[str, Tensor], gradient: Tensor, rate: float) -> dict[str, Tensor]:
    """The state, one step down a gradient further: the same tensors, as two of each would be held for all blocks."""
    state["steps"] += 1
    state["mean"].lerp_(gradient, 0.1)
    state["square"].lerp_(gradient.square(), 0.001)
    size = rate / (1 - 0.9 ** state["steps"])
    root = (state["square"] / (1 - 0.999 ** state["steps"])).sqrt_().add_(1e-8)
    state["value"] -= (size * state["mean"]).div_(root)
    return state
