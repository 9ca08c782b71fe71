"""Mono-Forward: every block learns the task by itself, through a projection of its own (arXiv 2501.09238).

For block l with activities a_l and a projection M_l, ``[outputs, activities]``::

    G_l   = M_l a_l                                     goodness of each class
    loss  = the task's loss of G_l, cross-entropy for classes
    W_l, M_l go down its gradient; nothing goes on to the block before

The last block gives the network's own outputs, so it needs no projection, and what is left is an ordinary network.
Projections are part of the rule's state, and step by Adam.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import UnsupportedError
from fewbits.train.rules._adam import fresh, stepped
from fewbits.train.rules._blocks import Chain
from fewbits.train.rules._local import leave
from fewbits.train.rules._nudge import one_tensor
from fewbits.train.rules._options import Positive, Seed, checked
from fewbits.train.rules._rule import Batch, Rule


@checked("mono-forward")
def mono_forward(lr: Positive = 1e-3, seed: Seed = 0) -> Rule:
    """Local losses through projections.

    Args:
        lr: of the projections' Adam. seed: of their first values, normal with variance 1 / activities.
    """

    def update(network: nn.Module, batch: Batch, state: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
        chain = batch.blocks()
        *hidden, last = chain
        projections = state["projections"] or _first(chain, batch, seed)
        after = []
        with batch.computing():
            given = chain.enter(batch.inputs)
            for block, memory in zip(hidden, projections, strict=True):
                given = block(given.detach())
                matrix = memory["value"].detach().requires_grad_()
                loss = batch.loss_of(given.float().flatten(1) @ matrix.T)
                (slope,) = leave(loss, block.parameters(), matrix)
                after.append(stepped(memory, batch.mean(slope), lr))
            outputs = last(given.detach())
            loss = batch.loss_of(outputs)
            leave(loss, last.parameters())
        return outputs.detach(), loss.detach(), {"projections": after}

    return Rule(lambda network: {"projections": []}, update)


def _first(chain: Chain, batch: Batch, seed: int) -> list[dict[str, Tensor]]:
    """Projections of all blocks but the last, from a pass in evaluation mode.

    Raises:
        UnsupportedError: outputs that are no numbers per sample.
    """
    with batch.computing(), evaluating(chain.network):
        *activities, outputs = chain.activations(chain.enter(batch.inputs))[1:]
    if one_tensor(outputs).dim() != 2:
        raise UnsupportedError(
            f"mono-forward projects activities to outputs [samples, classes], and {type(chain.network).__name__} gives "
            f"{list(outputs.shape)}: take backprop"
        )
    generator = torch.Generator().manual_seed(seed)
    found = []
    for a in activities:
        matrix = torch.randn(outputs.shape[1], a[0].numel(), generator=generator) * a[0].numel() ** -0.5
        found.append(fresh(matrix.to(a.device)))
    return found
