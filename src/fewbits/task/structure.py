"""What feeds what in a network, where inputs are at hand."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from fewbits.errors import UnsupportedError
from fewbits.graph.recorded import recorded
from fewbits.graph.traced import graph_of
from fewbits.task.batches import first_of, run, tensors_in


def structure_of(model: nn.Module, inputs: Any) -> fx.Graph:
    """The traced graph; where ``torch.fx`` cannot trace the network, that of one run on the first sample.

    Args:
        model: in evaluation mode. inputs: of a batch, on its device.
    """
    try:
        return graph_of(model)
    except UnsupportedError:
        return recorded_on(model, first_of(inputs, 1))


def recorded_on(model: nn.Module, inputs: Any) -> fx.Graph:
    """The graph of one run on these inputs, see :func:`fewbits.graph.recorded.recorded`."""
    return recorded(model, tensors_in(inputs), lambda: tensors_in(run(model.forward, inputs)))  # type: ignore[arg-type]
