"""Gradients that stay within a block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def leave(loss: Tensor, parameters: Sequence[nn.Parameter], *more: Tensor) -> list[Tensor]:
    """Add a local loss's gradients to the parameters' own, as blocks may share one, and return those of ``more``.

    A parameter that the loss does not depend on is left alone.
    """
    if not loss.requires_grad:  # everything in the block is frozen
        return [torch.zeros_like(t) for t in more]
    found = torch.autograd.grad(loss, [*parameters, *more], allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=False):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    rest = zip(more, found[len(parameters) :], strict=True)
    return [torch.zeros_like(t) if gradient is None else gradient for t, gradient in rest]
