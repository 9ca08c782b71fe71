"""Whether gradients of single samples can be taken layer by layer: found out on two samples of the first batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from fewbits.errors import UnsupportedError
from fewbits.measure.curvature._tap import Call, Taps
from fewbits.task import check_targets, first_of

Edge = tuple[Node, int]
_FACTOR = -2.0  # of the second sample's loss; any number but 1


def check_separable(model: nn.Module, weights: Mapping[str, Tensor], taps: Taps, inputs: Any, targets: Tensor) -> None:
    """Raise UnsupportedError, naming the layer, unless hooks on layers see all that a sample's gradient is made of.

    * A weight is used by its layer alone (attention, for one, uses its output layer's weight directly).
    * Samples do not mix: scaling one sample's loss scales its own gradients and no other's. They mix where
      normalisation uses statistics of the batch, or where a layer's first dimension is time.
    """
    few = first_of(inputs, 2)
    logits = taps.forward(model, few)
    check_targets(logits, targets[: len(logits)])
    uses = _uses(logits, weights)
    for name, weight in weights.items():
        seen = len(taps.calls[name])
        if uses[_edge(weight)] > seen:
            raise UnsupportedError(
                f"{name}: the network uses this weight outside of its layer's forward ({seen} of "
                f"{uses[_edge(weight)]} uses are the layer's); estimator='hutchinson' takes that"
            )
    if len(logits) < 2:
        return
    first: dict[str, list[Tensor]] = {}

    def remember(name: str, calls: list[Call]) -> None:
        first[name] = [_delta(call) for call in calls]

    def compare(name: str, calls: list[Call]) -> None:
        for before, call in zip(first[name], calls, strict=True):
            delta = _delta(call)
            if delta.shape[0] != 2:
                continue  # no sample dimension in front: told with its shape when the norms are taken
            error = (delta - before * before.new_tensor([1.0, _FACTOR]).reshape(2, *[1] * (delta.dim() - 1))).abs()
            if float(error.max()) > 1e-2 * float(before.abs().max()):
                raise UnsupportedError(
                    f"{call.name}: its gradient for one sample depends on the other samples of the batch (batch "
                    "statistics, or a first dimension that is not the sample); estimator='hutchinson' takes that"
                )

    # Fixed, uneven numbers instead of a loss: no gradient is near zero because a sample is classified well.
    score = (logits * torch.linspace(1, 2, logits.shape[-1], device=logits.device, dtype=logits.dtype)).flatten(1)
    taps.backward(score.sum(), remember, keep=True)
    taps.backward((score.sum(1) * score.new_tensor([1.0, _FACTOR])).sum(), compare, keep=False)


def _delta(call: Call) -> Tensor:
    assert call.delta is not None
    return call.delta


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _uses(output: Tensor, weights: Mapping[str, Tensor]) -> Counter[Edge]:
    """How often each weight enters the graph of ``output``."""
    wanted = {_edge(weight) for weight in weights.values()}
    found: Counter[Edge] = Counter()
    seen: set[Node] = set()
    ahead = [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, number in node.next_functions:
            if following is not None and (following, number) in wanted:
                found[following, number] += 1
            ahead.append(following)
    return found
