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
    """The state after one step down a gradient."""
    steps = state["steps"] + 1
    mean = torch.lerp(state["mean"], gradient, 0.1)
    square = torch.lerp(state["square"], gradient.square(), 0.001)
    size = rate / (1 - 0.9**steps)
    value = state["value"].detach() - size * mean / ((square / (1 - 0.999**steps)).sqrt() + 1e-8)
    return {"value": value, "mean": mean, "square": square, "steps": steps}
