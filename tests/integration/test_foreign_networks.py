"""Relevance, and files, of the list of networks that nobody here wrote (``benchmarks/networks.yaml``)."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

import second_engine
from benchmarks.kinds.relevance import EXACT, SHARP, start_of, total, unsettled, without
from benchmarks.networks import Network, networks
from fewbits import codec
from fewbits.attach import attach, fold, plan_of
from fewbits.channels.load import load_plan
from fewbits.measure.relevance import COMPOSITES, Epsilon, Tape, propagate
from fewbits.weights import places, select
from networks import plan_for

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


@torch.no_grad()
@pytest.mark.parametrize("chosen", networks(), ids=lambda chosen: chosen.label)
def test_every_weight_is_held_where_it_computes_and_its_file_decodes_bit_equal(chosen: Network) -> None:
    try:
        model, fresh = unsettled(chosen.build()), chosen.build(seed=1)
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    expected, inputs = copy.deepcopy(model), chosen.inputs()
    grids = plan_for(model, 4)
    for name, own in places(expected).items():
        if name in grids:
            own[0].stored.copy_(grids[name].values())
    wanted = chosen.run(expected, inputs)
    attach(model, grids)
    assert torch.allclose(chosen.run(model, inputs), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    plan = plan_of(model)
    assert set(plan) | set(plan.aliases) >= {name for name, _ in fresh.named_parameters(remove_duplicate=False)}
    assert set(plan.compressed) == set(select(expected))
    load_plan(fresh, codec.decode(codec.encode(plan, profile="fast"), like=fresh))
    assert torch.equal(chosen.run(fresh, inputs), wanted)
    fold(model)
    for net in (fresh, model):
        assert all(torch.equal(t, net.state_dict()[name]) for name, t in expected.state_dict().items())


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
