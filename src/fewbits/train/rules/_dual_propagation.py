"""Dual propagation (Hoier et al. 2023, arXiv 2302.01228).

Every neuron has two states, whose mean goes forward and whose difference goes backward. With the drive
``a_l = W_l z_(l-1)`` of a block and its activation ``f``, from the outputs down::

    z_L+- = a_L -+ weight+- beta dL/da_L
    z_l+- = f(a_l +- weight+- W_(l+1)^T (z_(l+1)+ - z_(l+1)-))        weight+ = alpha, weight- = 1 - alpha
    z_l   = alpha z_l+ + (1 - alpha) z_l-
    dW_l  = (z_l+ - z_l-) z_(l-1)^T / beta

What an activation trains itself (PReLU) learns by what is pulled at its outputs, ``W_(l+1)^T (z_(l+1)+ - z_(l+1)-)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.train.rules._nudge import output_errors, readable
from fewbits.train.rules._options import Count, Positive, Share, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("dual-propagation")
def dual_propagation(*, beta: Positive = 0.1, alpha: Share = 0.5, sweeps: Count = 1) -> Rule:
    """Differences of pairs of states in place of derivatives of activations.

    The limit of a small ``beta`` is backpropagation: the error falls with its square for ``alpha`` 0.5 and smooth
    activations, else with itself. Blocks may hold several layers; the drive of one is what its last activation gets,
    and goes back by its Jacobian (of a linear drive, its transpose).

    Args:
        beta: how far outputs are nudged, in units of a sample's loss. alpha: weight of the first state.
        sweeps: how often all states are computed from the outputs down.

    Raises:
        RecipeError: an impossible option. UnsupportedError, when it begins: a network that is no chain of blocks.
    """

    def update(network: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Any]:
        with batch.computing(), batch.blocks(pooled=False).steady() as chain:
            means = chain.activations(chain.enter(batch.inputs))
            outputs = means[-1]
            loss, errors = output_errors(batch, outputs)
            differences = [*(torch.zeros_like(mean) for mean in means[1:-1]), beta * errors]
            pulls: list[Tensor] = [outputs] * (len(chain) - 1)
            for _ in range(sweeps):
                for place in range(len(chain) - 2, -1, -1):
                    block, above = chain[place], chain[place + 1]
                    last = above is chain[-1]
                    pull = above.pull if last else above.pull_drive
                    back = pull(means[place + 1], differences[place + 1], learn=False)
                    with torch.no_grad():
                        drive = block.drive(means[place])
                        plus = block.activate(drive + alpha * back)
                        minus = block.activate(drive - (1 - alpha) * back)
                    differences[place], pulls[place] = plus - minus, back
                    means[place + 1] = alpha * plus + (1 - alpha) * minus
            for block, mean, difference in zip(chain, means, differences, strict=False):
                pull = block.pull if block is chain[-1] else block.pull_drive
                pull(mean, -difference / (beta * len(difference)))
            for block, mean, back in zip(chain, means, pulls, strict=False):
                block.pull_activation(mean, -back / (beta * len(back)))
        return outputs, loss, state

    return Rule(readable, update)
