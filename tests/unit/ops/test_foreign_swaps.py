"""Operations swapped in networks that others wrote."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from benchmarks.networks import Network, network, networks
from fewbits.approximation import approximations_of
from fewbits.ops.choose import chosen
from fewbits.ops.places import measure, places
from fewbits.ops.swap import swap
from fewbits.task.batches import Inputs

ASKED: dict[str, dict[str, Any]] = {
    "gelu": {"error": 1e-2}, "silu": {"error": 1e-2}, "sigmoid": {"error": 1e-2}, "tanh": {"error": 1e-2},
    "softmax": {"error": 1e-2}, "layer_norm": {"error": 1e-2}, "rms_norm": {"error": 1e-2},
}  # fmt: skip


def swapped_as_promised(row: Network) -> None:
    """Every place keeps its bound; the network computes, and so does a copy of it."""
    model, inputs = row.build(), row.inputs(2)
    given = inputs[""] if "" in inputs else Inputs((), inputs)
    found = places(model, [given])
    there = {place.operation for place in found}
    made = {
        one: approximation
        for name, options in ASKED.items()
        if any(operation.startswith(name) for operation in there)
        for one, approximation in chosen({name: options}, found).items()
    }
    if not made:
        return
    measure(model, [given], found, made)
    for place in found:
        if place.operation in made:
            assert place.error <= made[place.operation].bound, place
    with torch.no_grad():
        before = row.run(model, inputs)
        swap(model, made)
        after, again = row.run(model, inputs), row.run(copy.deepcopy(model), inputs)
    assert approximations_of(model) == made
    assert torch.isfinite(after).all()
    assert torch.equal(after, again)
    if row.library == "own":  # some of the others begin with layers of zeros, behind which nothing shows
        assert not torch.equal(after, before)


@pytest.mark.parametrize("label", ["own/transformer-encoder", "own/u-net"])
def test_networks_of_ones_own(label: str) -> None:
    swapped_as_promised(network(label))


@pytest.mark.long
@pytest.mark.parametrize("label", [row.label for row in networks()])
def test_every_network_of_the_list(label: str) -> None:
    row = network(label)
    if row.library != "own" and find_spec(row.library) is None:
        pytest.skip(f"{row.library} is not installed")
    swapped_as_promised(row)
