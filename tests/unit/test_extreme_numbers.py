"""Numbers at both ends of what a type holds, through the main job, folding and loading."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits import codec
from fewbits.attach import plan_of
from fewbits.attach.plain import plain_copy
from fewbits.attach.precision import shortened
from fewbits.channels.load import load_plan
from fewbits.errors import MismatchError, NonFiniteError
from fewbits.int8 import folded
from fewbits.plan import Dense, Masked, Plan

EXTREMES = [1e-45, 1e-38, 1e-8, 3e-5, 1e6, 1e38]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 4, generator=generator), torch.arange(8) % 3) for _ in range(2)]


@pytest.mark.parametrize("method", ["none", "ecq"])
def test_the_file_keeps_biases_normalisation_and_survivors(method: str) -> None:
    """The network's own numbers come back to 11 bits, whatever their size; nothing is trained."""
    net = network()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.dim() == 1 and (method == "none" or "bias" in name):
                tensor[: len(EXTREMES)] = torch.tensor(EXTREMES)[: len(tensor)]
    recipe = {"assign": {"method": method}, "train": {"epochs": 0}, "rounds": 1, "merge_normalisation": False}
    if method == "none":
        recipe["prune"] = {"method": "uniform", "sparsity": 0.5}
        net[0].weight.data[0] = torch.tensor([1e-45, 1e-8, 1e6, 1e38])
    else:
        recipe["assign"] = {"method": "ecq", "bits": 16, "lam": 0.0}
        net[0].weight.data[0] = torch.tensor([0.0, -0.01, 1.0, 0.06])
    done = fb.compress(net, batches(), recipe=recipe)
    assert done.report.identical
    found = done.plan.tensors()
    for name, tensor in net.state_dict().items():
        if name in found and (tensor.dim() == 1 or method == "none"):
            kept = found[name] != 0 if tensor.dim() > 1 else torch.ones_like(found[name], dtype=torch.bool)
            error = (found[name].double() - tensor.double()).abs()
            assert (error <= 2.0**-11 * tensor.double().abs())[kept].all(), name
        elif name in found:
            assert float((found[name] - tensor).abs().max()) <= float(tensor.abs().max()) / 2**15, name


@pytest.mark.parametrize(
    ("value", "text"), [(1e300, "1 of 6 numbers are too large"), (1e-300, "all numbers are too small")]
)
@pytest.mark.parametrize("name", ["1.running_var", "1.weight", "0.bias"])
def test_what_float64_alone_holds_is_named(name: str, value: float, text: str) -> None:
    net = network().double()
    with torch.no_grad():
        tensor = net.state_dict()[name]
        tensor[:] = value if value < 1 else 1.0
        tensor[2] = value
    with pytest.raises(NonFiniteError, match=rf"{name}: {text}.*float32"):
        plain_copy(net)
    net.state_dict()[name][:] = 1e-300
    net.state_dict()[name][0] = 1.0  # beside this one they are nothing
    assert plain_copy(net).state_dict()[name].tolist() == [1.0, 0, 0, 0, 0, 0]


def test_a_skeleton_whose_type_makes_infinity_of_a_number_is_refused() -> None:
    net = network()
    plan = plan_of(net)
    load_plan(network().half(), plan)
    net[3].bias.data[1] = -1e5
    with pytest.raises(MismatchError, match=r"3\.bias: the plan has 1e\+05, which .*float16 does not hold; .*float32"):
        load_plan(network().half(), plan_of(net))
    load_plan(network().bfloat16(), plan_of(net))


def test_infinity_in_a_dense_tensor_is_decoded_by_whoever_looks() -> None:
    mask = torch.full((4, 4), -math.inf).triu(1)
    data = codec.encode(Plan({"mask": Dense(shortened(mask, torch.float16)), "w": Dense(torch.ones(5))}))
    assert torch.equal(codec.decode(data, like={"mask": mask, "w": torch.ones(5)})["mask"].values(), mask)
    assert [row.count for row in codec.measure(data)] == [16]
    survivors = codec.encode(Plan({"w": Masked(torch.ones(4), torch.ones(4) > 0)}))
    assert codec.measure(survivors)


def test_a_normalisation_that_would_overflow_its_layer_is_not_folded() -> None:
    net = network()
    assert list(folded(net)[1]) == ["0"]
    with torch.no_grad():
        net[1].weight[0], net[1].running_var[0], net[0].weight[0] = 1e30, 1e-10, 1e10
        net[1].eps = 0.0
    copy, factors = folded(net)
    assert not factors
    x = batches()[0][0] * 1e-20
    assert torch.equal(copy(x), net(x))
