"""Batch normalisation as the affine map that it is after training: two numbers per channel, not four or five."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fewbits.attach.precision import held_by
from fewbits.weights import NORMS, shared


@torch.no_grad()
def merge_statistics(model: nn.Module, biases: Mapping[str, str] | None = None) -> int:
    """Move running statistics into scale and shift, in place: mean becomes 0 and variance 1.

    In evaluation mode the network computes the same (up to rounding); constant tensors cost nothing in a
    file, so half of the normalisation's numbers are saved. The layers stay, unlike with folding into the
    convolution, whose weights could then not stay on their grid.

    Args:
        biases: of :func:`biased`: these layers' biases move into the shift as well, and become 0.

    Returns:
        The number of layers merged. Without running statistics, or scale and shift, a layer is left alone, and one that
        shares them with another, or whose scale and shift would be too large or too small for float32.
    """
    biases, modules, count = biases or {}, dict(model.named_modules()), 0
    several = {module for module, _ in shared(model)}
    for path, module in modules.items():
        if not isinstance(module, NORMS) or module.running_mean is None or module.weight is None or module in several:
            continue
        assert module.running_var is not None
        # The layer divides by sqrt(1 + eps) from now on; in float64, so that merging twice changes nothing.
        scale = module.weight.double() * torch.rsqrt(module.running_var.double() + module.eps)
        mean = module.running_mean.double()
        before = modules[biases[path]].bias if path in biases else None
        if before is not None:
            mean = mean - before.double()
        weight, bias = scale * (1.0 + module.eps) ** 0.5, module.bias.double() - mean * scale
        if not (held_by(weight, torch.float32) and held_by(bias, torch.float32)):
            continue
        if before is not None:
            before.zero_()
        module.weight.copy_(weight)
        module.bias.copy_(bias)
        module.running_mean.zero_()
        module.running_var.fill_(1.0)
        count += 1
    return count
