"""What a batch is, and how it is handed to a network."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(inputs: Tensor) -> Tensor:
    """Images channels-last, which convolutions are fastest in (ResNet-20 evaluates in half the time)."""
    return inputs if inputs.dim() != 4 else inputs.contiguous(memory_format=torch.channels_last)
