"""Costs of a plan, against a count by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewbits.errors import MismatchError, RecipeError
from fewbits.hardware import COSTS, cost_of, count
from fewbits.int8.form import affine_plan, calibrate, hold_affine, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.plan import Clustered, Dense, Plan


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()


@pytest.fixture
def plan(model: nn.Module) -> Plan:
    entries: dict[str, Clustered | Dense] = {n: Dense(t.detach().clone()) for n, t in model.state_dict().items()}
    for name in ("0.weight", "4.weight"):
        shape = model.get_parameter(name).shape
        levels = torch.randint(-1, 2, shape, dtype=torch.int16, generator=torch.Generator().manual_seed(1))
        entries[name] = Clustered(levels, 2, step=0.5)
    return Plan(entries)


def test_costs_are_what_a_loop_counts(model: nn.Module, plan: Plan) -> None:
    left = {name: sum(v != 0 for v in plan[name].values().flatten().tolist()) for name, _ in model.named_parameters()}
    macs = 16 * left["0.weight"] + left["4.weight"]  # 4 x 4 places; biases and normalisation are not multiplications
    found = {name: cost_of(name, model, (1, 6, 6))(plan) for name in COSTS}
    assert found == {"parameters": sum(left.values()), "macs": macs, "flops": 2 * macs}
    assert found["macs"] == count(model, (1, 6, 6), plan).nonzero_macs


def test_costs_of_an_integer_network(model: nn.Module) -> None:
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))])
    hold_affine(net)
    plan = affine_plan(net)
    weights = [sum(v != 0 for v in plan[f"{n}.weight"].levels.flatten().tolist()) for n in "04"]  # type: ignore[union-attr]
    biases = sum(v != 0 for n in "04" for v in plan[f"{n}.bias"].values().tolist())
    found = {name: cost_of(name, model, (1, 6, 6))(plan) for name in COSTS}
    macs = 16 * weights[0] + weights[1]
    assert found == {"parameters": sum(weights) + biases, "macs": macs, "flops": 2 * macs}


def test_normalisation_that_is_not_folded_counts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.PReLU(), nn.Linear(7, 3)).eval()
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [torch.randn(8, 5)])
    hold_affine(net)
    plan = affine_plan(net)
    wanted = sum(int(plan[name].values().count_nonzero()) for name, _ in model.named_parameters())
    assert cost_of("parameters", model, (5,))(plan) == wanted


def test_a_cost_from_elsewhere_goes_first(model: nn.Module, plan: Plan) -> None:
    seen = []

    def latency(network: nn.Module, shape: tuple[int, ...]):
        seen.append((network, shape))
        return lambda plan: 1.5 * len(plan)

    assert cost_of("latency", model, (1, 6, 6), {"latency": latency})(plan) == 1.5 * len(plan)
    assert seen == [(model, (1, 6, 6))]


def test_what_is_none(model: nn.Module, plan: Plan) -> None:
    with pytest.raises(RecipeError, match=r"no cost named 'flop'; did you mean 'flops'\?; there are flops, macs"):
        cost_of("flop", model, (1, 6, 6))
    short = Plan({name: entry for name, entry in plan.items() if name != "4.weight"})
    for name in COSTS:
        with pytest.raises(MismatchError, match=r"lacks '4\.weight'"):
            cost_of(name, model, (1, 6, 6))(short)
