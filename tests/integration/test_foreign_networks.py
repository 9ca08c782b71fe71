"""Relevance, and files, of the list of networks that nobody here wrote (``benchmarks/networks.yaml``)."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

import fewbits as fb
import second_engine
from benchmarks.kinds.relevance import EXACT, SHARP, start_of, total, unsettled, without
from benchmarks.networks import Network, networks
from fewbits import codec
from fewbits.attach import attach, fold, plan_of
from fewbits.channels import dependencies, prune_channels, zero_channels
from fewbits.channels.load import load_plan
from fewbits.int8.form import grids
from fewbits.measure.relevance import COMPOSITES, Epsilon, Tape, propagate
from fewbits.pipeline.restore import holds, restore
from fewbits.task import Inputs, Task, main_output
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


UNTRACED = [one for one in networks() if one.library == "transformers"]
HEADS = {"llama": 2, "qwen3": 2}  # those of keys and values
UNITS = {"gpt2": 128}


@torch.no_grad()
@pytest.mark.parametrize("chosen", UNTRACED, ids=lambda chosen: chosen.label)
def test_heads_and_units_of_transformers_are_channels(chosen: Network) -> None:
    try:
        model = unsettled(chosen.build().double())
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    inputs = chosen.inputs(dtype=torch.float64)
    found = dependencies(model, Inputs((), inputs))
    sizes = [len(group) for group in found.groups]
    assert sizes.count(UNITS.get(chosen.name, 64)) == 2
    assert sizes.count(HEADS.get(chosen.name, 4)) == (1 if chosen.name == "t5-encoder" else 2)  # one table of biases
    for left in (1, 0):  # of each group: one goes, or one stays
        removed = [unit for group in found.groups for unit in (group[left:] if left else group[:1])]
        small, zeroed = copy.deepcopy(model), copy.deepcopy(model)
        prune_channels(small, found.without(removed))
        zero_channels(zeroed, found.without(removed))
        wanted = chosen.run(zeroed, inputs)
        assert close(chosen.run(small, inputs), wanted)
        assert not close(wanted, chosen.run(model, inputs))


@pytest.mark.parametrize("chosen", UNTRACED, ids=lambda chosen: chosen.label)
def test_transformers_have_integers_that_a_file_gives_back(chosen: Network) -> None:
    try:
        model = unsettled(chosen.build())
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    inputs = chosen.inputs()
    recipe = {"train": None, "rounds": 1, "assign": {"method": "int8"}, "activations": {"calibrate": 1}}
    task = Task(loss=lambda outputs, targets: outputs.square().mean(), outputs=main_output)
    small = fb.compress(model, [(inputs, torch.zeros(2))], task=task, recipe=recipe, progress=None)
    net, plan = restore(small.data, chosen.build(seed=3))
    assert holds(net, plan)
    with torch.no_grad():
        off = (chosen.run(net, inputs) - chosen.run(model, inputs)).norm() / chosen.run(model, inputs).norm()
    assert 0 < float(off) < 0.05
    assert len(grids(net)) == sum(isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d)
                                  for module in model.modules())  # fmt: skip


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
