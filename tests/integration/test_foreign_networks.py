"""Relevance on the list of networks that nobody here wrote (``benchmarks/networks.yaml``)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import second_engine
from benchmarks.kinds.relevance import EXACT, SHARP, start_of, total, unsettled, without
from benchmarks.networks import Network, networks
from fewbits.measure.relevance import COMPOSITES, Epsilon, Tape, propagate

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("chosen", networks(), ids=lambda chosen: chosen.label)
def test_relevance_is_conserved_and_reaches_every_weight(chosen: Network) -> None:
    try:
        model = unsettled(chosen.build().double())
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    inputs = chosen.inputs(dtype=torch.float64)
    assert total(model, lambda: chosen.run(model, inputs)) == pytest.approx(1, abs=1e-6)
    for name in ("epsilon", "plus"):
        assert without(model, lambda: chosen.run(model, inputs), COMPOSITES[name]) == 0


@pytest.mark.parametrize("attention", ["half", "detach"])
@pytest.mark.parametrize("chosen", networks(), ids=lambda chosen: chosen.label)
def test_a_second_engine_finds_the_same(chosen: Network, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        model = unsettled(chosen.build().double())
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    if chosen.library == "transformers":  # a look into the data, which no tracer can follow; no mask depends on it here
        monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda *_, **__: None)
    inputs = chosen.inputs(dtype=torch.float64)
    tape = Tape(model)
    with tape.watch():
        outputs = chosen.run(model, inputs)
    start = start_of(outputs)
    rules = dataclasses.replace(EXACT, attention=attention, weight=Epsilon(SHARP))
    found = propagate(outputs, start, rules, tape, inputs=True)
    of_inputs, of_weights = second_engine.relevance(model, chosen.run, inputs, start, attention)
    for mine, other in zip(found.sources, of_inputs.values(), strict=False):
        assert close(mine, other)
    if "nfnet" in chosen.name:
        return  # standardised weights: the product takes relevance where they enter the layer, not before
    compared = [name for name in found.weights if name in of_weights]
    assert compared
    for name in compared:
        assert close(found.weights[name], of_weights[name]), name


def close(mine: Tensor, other: Tensor) -> bool:
    return float((mine - other).abs().max()) <= 1e-7 * max(float(other.abs().max()), 1e-9)


def test_the_list_is_of_fifty_five_and_each_is_there_once() -> None:
    labels = [chosen.label for chosen in networks()]
    assert len(labels) == len(set(labels)) == 55


def test_a_total_that_is_not_one_is_noticed() -> None:
    """Softmax by its derivative does not conserve relevance: the same books then do not close."""
    chosen = next(n for n in networks() if n.label == "own/transformer-encoder")
    model, inputs = unsettled(chosen.build().double()), chosen.inputs(dtype=torch.float64)
    kept = total(model, lambda: chosen.run(model, inputs), attention="half")
    assert abs(kept - 1) > 1e-4
