"""Weights held as differences: what the network computes, what trains, and what is left afterwards."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fewbits.attach import attach, background, evaluating, fold, held, plan_of, release
from fewbits.attach.precision import on_grid
from fewbits.plan import Clustered, Dense, Masked
from networks import small_network

X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def bases(net: nn.Module) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        n: t + 0.01 * torch.randn(t.shape, generator=draw) for n, t in net.state_dict().items() if t.is_floating_point()
    }


def entries(net: nn.Module) -> dict[str, Clustered | Masked]:
    own = bases(net)
    difference = {n: net.state_dict()[n] - own[n] for n in ("0.weight", "5.weight", "7.weight")}
    clustered = {n: on_grid(d, 4) for n, d in difference.items()}
    found: dict[str, Clustered | Masked] = {
        n: Clustered(lv, 4, step=step, base=own[n]) for n, (lv, step) in clustered.items()
    }
    mask = difference["7.weight"].abs() > 0.01
    found["7.weight"] = Masked(difference["7.weight"] * mask, mask, base=own["7.weight"])
    return found


def test_the_network_computes_with_the_entries_and_trains_the_differences() -> None:
    torch.manual_seed(0)
    net = small_network().eval()
    plan, before = entries(net), copy.deepcopy(net)
    attach(net, plan)
    for name, entry in plan.items():
        assert torch.equal(net.get_submodule(name[:1]).weight, entry.values())
        assert torch.equal(background(net)[name], before.state_dict()[name] - entry.base)
        assert held(net)[name] is not None
    plain = copy.deepcopy(before)
    plain.load_state_dict({n: e.values() for n, e in plan.items()}, strict=False)
    with evaluating(net):
        assert torch.equal(net(X), plain(X))
    net(X).square().sum().backward()
    plain(X).square().sum().backward()
    for name in ("0.weight", "5.weight"):  # straight through: the gradient at the sum is that of the difference
        assert torch.equal(background(net)[name].grad, plain.get_parameter(name).grad)


def test_the_plan_has_differences_of_everything_that_has_a_base() -> None:
    torch.manual_seed(0)
    net = small_network().eval()
    own = bases(net) | {"1.weight": net.state_dict()["1.weight"].clone()}
    del own["7.bias"]
    attach(net, entries(net))
    for bits in (None, 4):
        found = plan_of(net, significand=bits, bases=own)
        assert isinstance(found["7.bias"], Dense)
        assert found["7.bias"].base is None
        assert torch.equal(found["1.weight"].values(), own["1.weight"])
        assert not found["1.weight"].own().any()
        bias = found["5.bias"]
        assert isinstance(bias, Dense if bits is None else Clustered)
        error = (bias.values() - net.state_dict()["5.bias"]).abs().max()
        largest = (net.state_dict()["5.bias"] - own["5.bias"]).abs().max()
        assert error <= (1e-7 if bits is None else largest / 7 / 2 * 1.07)
        assert all(torch.equal(found[name].base, own[name]) for name in ("0.weight", "5.weight", "7.weight"))


@pytest.mark.parametrize("folded", [True, False])
def test_what_is_left_is_a_plain_network(folded: bool) -> None:
    torch.manual_seed(0)
    net = small_network().eval()
    plan, before = entries(net), copy.deepcopy(net.state_dict())
    attach(net, plan)
    net = copy.deepcopy(net)
    (fold if folded else release)(net)
    assert set(net.state_dict()) == set(before)
    for name, tensor in net.state_dict().items():
        wanted = plan[name].values() if folded and name in plan else before[name]
        if folded or name not in plan:
            assert torch.equal(tensor, wanted)
        else:
            torch.testing.assert_close(tensor, wanted)


def test_a_shared_weight_is_one_difference() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    torch.manual_seed(0)
    net = Tied()
    base = net.a.weight.detach() + 0.1
    entry = Clustered(torch.ones(4, 4, dtype=torch.int16), 3, step=0.05, base=base)
    attach(net, {"a.weight": entry})
    assert torch.equal(net.a.weight, entry.values())
    assert torch.equal(net.b.weight, entry.values())
    torch.testing.assert_close(background(net)["a.weight"].detach(), torch.full((4, 4), -0.1))
    assert plan_of(net, bases={"a.weight": base}).aliases == {"b.weight": "a.weight"}
    release(net)
    assert net.a.weight is net.b.weight
    torch.testing.assert_close(net.a.weight.detach(), base - 0.1)


@pytest.mark.parametrize("outlier", [0.0, 1e3])
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_one_large_difference_takes_no_precision_from_the_others(outlier: float, bits: int) -> None:
    torch.manual_seed(0)
    net = small_network().eval()
    tensor = net.state_dict()["5.bias"].uniform_(0.5, 1)
    base = tensor + 0.02 * torch.randn(tensor.shape)
    base[0] += outlier
    entry = plan_of(net, significand=bits, bases={"5.bias": base})["5.bias"]
    assert isinstance(entry, Clustered if outlier == 0 else Dense)
    error = (entry.values() - tensor).abs()[1:]
    assert float(error.max()) <= 0.02 * 4 * 2.0**-bits


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_integers_of_a_difference_are_off_by_half_a_step_at_most(scale: float) -> None:
    data = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * scale
    for bits in (2, 4, 8):
        levels, step = on_grid(data, bits)
        top = 2 ** (bits - 1) - 1
        assert round(top / 1.07) <= int(levels.abs().max()) <= top
        assert math.frexp(step)[0] * 32 % 1 == 0
        assert float((levels * step - data).abs().max()) <= step / 2 * 1.0001
