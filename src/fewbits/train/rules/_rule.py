"""The seam between the training loop and how a network learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """One batch, as a rule meets it.

    Attributes:
        forward: runs the network as it is now; gives its outputs and the loss, a scalar in the graph. A rule that
            perturbs weights calls it several times, inside :func:`fewbits.attach.perturbable`.
        backward: leaves a loss's gradients on the parameters, as the accelerator wants it done.
    """

    forward: Callable[[], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor], None]


class Rule(NamedTuple):
    """A pair of functions; what a rule remembers is its state, which only the rule reads.

    ``init(network)`` makes the first state. ``update(network, batch, state)`` leaves on every parameter that it trains
    the direction in ``.grad`` against which the optimizer steps, and returns outputs, loss and the next state.
    """

    init: Callable[[nn.Module], Any]
    update: Callable[[nn.Module, Batch, Any], tuple[Tensor, Tensor, Any]]
