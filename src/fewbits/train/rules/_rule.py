"""The seam between the training loop and how a network learns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from fewbits.train.rules._blocks import Chain


@dataclass(frozen=True)
class Batch:
    """One batch, as a rule meets it.

    Attributes:
        forward: runs the network as it is now; gives its outputs and the loss, a scalar in the graph. A rule that
            perturbs weights calls it several times, inside :func:`fewbits.attach.perturbable`.
        backward: leaves a loss's gradients on the parameters, as the accelerator wants it done.
        inputs: what the network is called with: one tensor, or :class:`~fewbits.task.Inputs`.
        targets: what only the task reads; of a classification, class indices ``[n]``.
        loss_of: the loss of given outputs, a scalar in their graph: of the whole network's, or of a head of a rule's
            own that gives the like. They are checked as those of ``forward`` are.
        blocks: the network as a chain of blocks, for rules that go through it block by block; ``blocks(pooled=False)``
            leaves pooling behind a layer to the next block.
        computing: around calls of blocks: they then compute in the training's precision, and their errors name the
            batch.
        mean: of a tensor over the processes; of one process, the tensor itself. A rule that learns something that is
            no parameter of the network takes it of its directions, so that all processes learn the same.
    """

    forward: Callable[[], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor], None]
    inputs: Any
    targets: Any
    loss_of: Callable[[Any], Tensor]
    blocks: Callable[..., Chain]
    computing: Callable[[], AbstractContextManager[Any]]
    mean: Callable[[Tensor], Tensor]


class Rule(NamedTuple):
    """A pair of functions; what a rule remembers is its state, which only the rule reads.

    ``init(network)`` makes the first state. ``update(network, batch, state)`` leaves on every parameter that it trains
    the direction in ``.grad`` against which the optimizer steps, and returns outputs, loss and the next state.

    A state is plain data and tensors in dicts, lists and tuples, so that an interrupted training can go on with it.
    Directions that did not come from ``batch.backward`` are of this process's samples; the loop takes their mean.
    """

    init: Callable[[nn.Module], Any]
    update: Callable[[nn.Module, Batch, Any], tuple[Tensor, Tensor, Any]]
