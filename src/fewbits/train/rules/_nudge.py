"""What outputs are drawn to: the one place where rules that go block by block meet the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules._blocks import blocks_of
from fewbits.train.rules._rule import Batch


def output_errors(batch: Batch, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of outputs, and ``-dL/dy`` of every sample's own loss, where the batch's is the mean over samples.

    Raises:
        UnsupportedError: outputs that are no tensor of floats.
    """
    outputs = one_tensor(outputs).detach().requires_grad_()
    with torch.enable_grad():
        loss = batch.loss_of(outputs)
    slope = torch.autograd.grad(loss, outputs)[0]
    return loss.detach(), -slope * len(outputs)


def one_tensor(outputs: object) -> Tensor:
    """Outputs, if they are a tensor of floats; else UnsupportedError."""
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        raise UnsupportedError(
            f"the network's outputs are {type(outputs).__name__}; a rule that goes layer by layer needs one tensor"
        )
    return outputs


def readable(network: nn.Module) -> None:
    """Raise UnsupportedError unless a network is a chain of blocks; the first state of rules that remember nothing."""
    blocks_of(network)


def forget_directions(network: nn.Module) -> None:
    """Zeros in place of all directions: a step in which something beside the network learns."""
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad = torch.zeros_like(parameter.grad)
