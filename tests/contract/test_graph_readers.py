"""Two readers of a network's structure, a trace and a recorded run: whatever both can read, they read alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewbits.channels._read as reading
from attention_networks import Gated, Heads
from channel_networks import Attention, Drawn
from fewbits.channels import Dependencies, dependencies
from fewbits.errors import UnsupportedError
from fewbits.graph import pairs, recorded
from fewbits.graph.traced import graph_of
from fewbits.zoo import build

BLOCKS = ["residual", "concat", "gate", "depthwise", "grouped", "split", "plain"]
NETWORKS = {
    "blocks, averaged": (lambda: Drawn(BLOCKS, 4, flat=False), (2, 6, 6)),
    "blocks, flattened": (lambda: Drawn(BLOCKS[::-1], 4, flat=True), (2, 6, 6)),
    "heads": (lambda: Attention(-1, 4), (6, 5)),
    "places of heads": (lambda: Attention(3, -1), (6, 5)),
    "fixed heads": (lambda: Attention(3, 4), (6, 5)),
    "fused heads": (lambda: Attention(-1, 4, fused=True), (6, 5)),
    "shared keys": (lambda: Heads(share=2), (6, 8)),
    "shared keys, not fused": (lambda: Heads(share=2, fused=False), (6, 8)),
    "keys that torch repeats": (lambda: Heads(share=2, native=True), (6, 8)),
    "a gated unit": (lambda: nn.Sequential(Gated(), nn.Linear(8, 2)), (8,)),
    "a residual network": (lambda: build("resnet-20"), (3, 32, 32)),
}


def by_a_run(model: nn.Module, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> Dependencies:
    def refused(_: nn.Module) -> None:
        raise UnsupportedError("no tracer today")

    monkeypatch.setattr(reading, "graph_of", refused)
    return dependencies(model, shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_dependencies_are_equal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval()
    traced = dependencies(model, shape)
    ran = by_a_run(model, shape, monkeypatch)
    assert traced.count == ran.count > 0
    assert traced.outputs == ran.outputs
    assert set(traced.axes) == set(ran.axes)
    for tensor, units in traced.axes.items():
        for mine, theirs in zip(units, ran.axes[tensor], strict=True):
            assert (mine is None and theirs is None) or torch.equal(mine, theirs), tensor
    assert set(traced.fixed) == set(ran.fixed)


@pytest.mark.parametrize("name", ["blocks, averaged", "a residual network"])
def test_normalisations_follow_the_same_layers(name: str) -> None:
    make, shape = NETWORKS[name]
    model, x = make().eval(), torch.zeros(1, *shape)
    modules = dict(model.named_modules())
    found = [
        [(str(layer.target), str(norm.target)) for layer, norm in pairs(graph, modules)]
        for graph in (graph_of(model), recorded(model, [x], lambda: [model.forward(x)]))
    ]
    assert found[0] == found[1] != []
