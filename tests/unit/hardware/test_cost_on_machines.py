"""Costs on a machine, as a search minimises them, and ``fb.cost``."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits import codec
from fewbits.channel_masks import ChannelMasks
from fewbits.errors import MismatchError, RecipeError, UnsupportedError
from fewbits.hardware import MACHINE_COSTS, Known, cost_of, layers, machine_of, machine_text, maker_of, price
from fewbits.plan import Clustered, Dense, Plan


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.wise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.wise(torch.relu(self.first(x)))).flatten(1))


def planned(model: nn.Module, density: float) -> Plan:
    generator = torch.Generator().manual_seed(0)
    entries: dict[str, Clustered | Dense] = {}
    for name, tensor in model.state_dict().items():
        entries[name] = Dense(tensor.clone())
        if tensor.dim() > 1:
            kept = torch.rand(tensor.shape, generator=generator) < density
            entries[name] = Clustered(kept.short() * 3, 4, step=0.1)
    return Plan(entries)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def test_costs_are_the_price_in_named_units(model: nn.Module) -> None:
    plan = planned(model, 0.3)
    whole = price(layers(model, (1, 6, 6), plan), machine_of("eyeriss-v2"))
    found = {name: cost_of(f"{name}@eyeriss-v2", model, (1, 6, 6))(plan) for name in MACHINE_COSTS}
    assert found["latency"] == pytest.approx(1e3 * whole.seconds)
    assert found["energy"] == pytest.approx(1e6 * (whole.joules or 0))
    assert found["traffic"] == whole.bytes_by_memory["dram"]


def test_more_zeros_cost_less_where_they_are_skipped(model: nn.Module) -> None:
    dense, sparse = planned(model, 0.9), planned(model, 0.2)
    for name in MACHINE_COSTS:
        cost = cost_of(f"{name}@eyeriss-v2", model, (1, 6, 6))
        assert cost(sparse) < cost(dense)
    cost = cost_of("latency@systolic-32", model, (1, 6, 6))
    assert cost(sparse) == cost(dense)


def test_a_plan_that_does_not_fit_costs_infinitely_much(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    path = tmp_path / "small.yaml"
    path.write_text(machine_text("eie").replace("value: 8192", "value: 1"))
    cost = cost_of(f"latency@{path}", model, (64,))
    assert cost(planned(model, 0.9)) == math.inf
    assert cost(planned(model, 0.1)) < 1


def test_costs_that_are_none(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match="no machine 'eyerisv2'; did you mean 'eyeriss-v2'"):
        maker_of("latency@eyerisv2")
    with pytest.raises(RecipeError, match=r"no cost named 'latency'.*latency@MACHINE"):
        maker_of("latency")
    with pytest.raises(RecipeError, match="no cost named 'speed@eyeriss'"):
        maker_of("speed@eyeriss")
    with pytest.raises(RecipeError, match="tpu-v1 has no energy"):
        maker_of("energy@tpu-v1")
    with pytest.raises(MismatchError, match=r"lacks 'head\.weight'"):
        cost_of("latency@stc", model, (1, 6, 6))(Plan({k: v for k, v in planned(model, 1).items() if "head" not in k}))


def narrowed(model: nn.Module) -> Plan:
    """A plan that lost one of four channels."""
    left = torch.tensor([True, False, True, True])
    columns = left.repeat_interleave(36)
    kept = {
        "first.weight": {0: left}, "first.bias": {0: left}, "wise.weight": {0: left}, "wise.bias": {0: left},
        "head.weight": {1: columns},
    }  # fmt: skip
    masks = ChannelMasks(
        {name: tuple(by.get(d) for d in range(model.get_parameter(name).dim())) for name, by in kept.items()}, {}
    )
    entries = {}
    for name, tensor in model.state_dict().items():
        for dim, mask in kept.get(name, {}).items():
            tensor = tensor.index_select(dim, mask.nonzero().flatten())
        entries[name] = Dense(tensor)
    return Plan(entries, masks)


def test_a_network_that_lost_channels_has_smaller_layers(model: nn.Module) -> None:
    plan = narrowed(model)
    first, wise, head = layers(model, (1, 6, 6), plan)
    assert (first.outputs, first.macs) == (3, 3 * 9 * 36)
    assert (wise.inputs, wise.outputs, wise.groups, wise.macs) == (3, 3, 3, 3 * 9 * 36)
    assert (head.inputs, head.macs) == (108, 324)
    assert cost_of("latency@eyeriss-v2", model, (1, 6, 6))(plan) < cost_of("latency@eyeriss-v2", model, (1, 6, 6))(
        planned(model, 1.0)
    )


def test_fb_cost_of_a_file_a_plan_and_real_inputs(model: nn.Module, tmp_path: Path) -> None:
    plan = planned(model, 0.3)
    path = tmp_path / "net.few"
    path.write_bytes(codec.encode(plan))
    before = copy.deepcopy(model.state_dict())
    found = fb.cost(path, model, (1, 6, 6), machine="eyeriss-v2")
    assert found.as_dict() == fb.cost(plan, model, (1, 6, 6), machine=machine_of("eyeriss-v2")).as_dict()
    assert {row.inputs_known for row in found.layers} == {Known.DENSE}
    real = fb.cost(path, model, torch.randn(8, 1, 6, 6), machine="eyeriss-v2")
    assert {row.inputs_known for row in real.layers} == {Known.COUNTED}
    assert real.layers[1].products < found.layers[1].products, "a rectifier makes zeros"
    half = fb.cost(path, model, (1, 6, 6), machine="eyeriss-v2", input_density=0.5)
    assert half.layers[1].products == found.layers[1].products / 2
    narrow = fb.cost(narrowed(model), model, torch.randn(2, 1, 6, 6), machine="stc", batch=4)
    assert [row.macs for row in narrow.layers] == [972, 972, 324]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(UnsupportedError, match=r"first\.weight is a convolution"):
        fb.cost(path, model, (1, 6, 6), machine="eie")
    with pytest.raises(RecipeError, match="no machine 'mine'"):
        fb.cost(path, model, (1, 6, 6), machine="mine")


@pytest.mark.slow
def test_a_plan_as_large_as_resnet_50_is_priced_in_two_seconds() -> None:
    """25 million weights in 53 layers; the forward pass is left out, which depends on the machine that runs it."""
    model = nn.Sequential(*(nn.Linear(700, 700) for _ in range(52)))
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(-7, 8, (700, 700), generator=generator).short()
    levels[torch.rand(700, 700, generator=generator) < 0.6] = 0
    plan = Plan({name: Clustered(levels, 4, step=0.1) for name, p in model.named_parameters() if p.dim() > 1})
    begin = time.process_time()
    found = fb.hardware.price(layers(model, (700,), plan), machine_of("eyeriss-v2"))
    assert time.process_time() - begin < 2
    assert found.macs == 52 * 700 * 700
