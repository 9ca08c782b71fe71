"""One record for each layer, against counts by hand and by loops."""

from __future__ import annotations

from itertools import product
from math import log2

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits import zoo
from fewbits.errors import MismatchError, RecipeError
from fewbits.hardware import Known, count, layers
from fewbits.plan import Affine, Clustered, Dense, Masked, Plan


class Twice(nn.Module):
    """One layer used three times, on inputs of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(2 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv(self.conv(x)), 2)
        return self.head(self.conv(x).flatten(1))


def test_shapes_and_multiplications_by_hand() -> None:
    large, small, head = layers(Twice(), (2, 8, 8))
    assert (large.name, large.calls, large.size_in, large.size_out) == ("conv.weight", 2, (8, 8), (8, 8))
    assert (small.name, small.calls, small.size_in) == ("conv.weight", 1, (4, 4))
    assert (large.macs, large.reduction, large.input_numbers, large.output_numbers) == (36 * 64, 18, 128, 128)
    assert (head.kernel, head.positions, head.reduction, head.macs) == ((), 1, 32, 96)
    assert {layer.weights_known for layer in (large, small, head)} == {Known.DENSE}


@pytest.mark.parametrize("name", ["resnet-20", "digits-net", "lenet-300-100"])
def test_multiplications_are_those_of_count(name: str) -> None:
    shape = {"resnet-20": (3, 32, 32), "digits-net": (1, 8, 8), "lenet-300-100": (784,)}[name]
    model = zoo.build(name)
    assert sum(layer.macs * layer.calls for layer in layers(model, shape)) == count(model, shape).macs


def test_zeros_levels_and_entropy_of_a_plan() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    plan = Plan(
        {
            "0.weight": Clustered(torch.tensor([[0, 0, 0, 0], [1, 1, -1, 0]], dtype=torch.int16), 2, step=0.5),
            "1.weight": Masked(torch.ones(2, 2), torch.tensor([[True, False], [False, False]])),
            "2.weight": Dense(torch.tensor([[1.0, 0.0], [2.0, 3.0]], dtype=torch.float16)),
        }
    )
    clustered, masked, dense = layers(model, (4,), plan)
    assert (clustered.weights, clustered.nonzero, clustered.levels, clustered.bits) == (8, 3, 3, 2)
    assert clustered.entropy_bits == pytest.approx(-(5 / 8 * log2(5 / 8) + 2 / 8 * log2(2 / 8) + 1 / 8 * log2(1 / 8)))
    assert (masked.nonzero, masked.levels, masked.bits, masked.entropy_bits) == (1, 0, 32, None)
    assert (dense.nonzero, dense.bits) == (3, 16)
    assert {layer.weights_known for layer in (clustered, masked, dense)} == {Known.COUNTED}
    assert {layer.inputs_known for layer in (clustered, masked, dense)} == {Known.DENSE}
    assert clustered.products == 3


def brute(inputs: Tensor, weight: Tensor, module: nn.Conv2d) -> int:
    """Multiplications without a zero, one by one."""
    (pad, _), (step, _), (apart, _) = module.padding, module.stride, module.dilation  # type: ignore[misc]
    padded = F.pad(inputs, (pad,) * 4)
    per = weight.shape[0] // module.groups
    found = 0
    rows, columns = module(inputs).shape[-2:]
    for sample, out, y, x in product(range(len(inputs)), range(len(weight)), range(rows), range(columns)):
        for channel, i, j in product(*map(range, weight.shape[1:])):
            from_ = out // per * weight.shape[1] + channel
            value = padded[sample, from_, y * step + i * apart, x * step + j * apart]
            found += bool(value != 0 and weight[out, channel, i, j] != 0)
    return found


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "padding": 1}, {"dilation": 2, "groups": 4}]
)
def test_products_of_real_inputs_are_what_a_loop_counts(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(4, 4, 2, **options)
    inputs = torch.randn(2, 4, 4, 5).relu()
    levels = torch.randint(-1, 2, module.weight.shape).short()
    plan = Plan({"0.weight": Clustered(levels, 2, step=1.0)})
    (layer,) = layers(nn.Sequential(module), inputs, plan)
    assert layer.products * 2 == brute(inputs, levels, module)
    assert layer.inputs_known is Known.COUNTED
    assert layer.input_density == pytest.approx(float((inputs != 0).double().mean()))


def test_products_of_a_linear_layer_with_positions() -> None:
    torch.manual_seed(1)
    inputs, levels = torch.randn(3, 7, 5).relu(), torch.randint(-1, 2, (4, 5)).short()
    model = nn.Sequential(nn.Linear(5, 4))
    (layer,) = layers(model, inputs, Plan({"0.weight": Clustered(levels, 2, step=1.0)}))
    assert layer.positions == 7
    assert layer.products * 3 == int(((inputs != 0).double() @ (levels != 0).double().T).sum())


def test_inputs_are_looked_at_before_the_network_changes_them() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) + self.second(x.relu_())

    first, second = layers(InPlace(), torch.tensor([[-1.0, 1.0]]))
    assert (first.input_density, second.input_density) == (1.0, 0.5)


def test_a_density_is_said_to_be_one() -> None:
    large, small, head = layers(Twice(), (2, 8, 8), density={"conv.weight": 0.25}, input_density=0.5)
    assert (large.nonzero, large.products, large.weights_known) == (9, 9 * 64 * 0.5, Known.DENSITY)
    assert (small.density, small.inputs_known) == (0.25, Known.DENSITY)
    assert (head.density, head.weights_known, head.inputs_known) == (1, Known.DENSE, Known.DENSITY)


def test_patterns_lie_along_the_inputs() -> None:
    levels = torch.zeros(2, 8, 3, 1, dtype=torch.int16)
    levels[:, ::2] = 1  # two of four input channels, at every place of the kernel
    (layer,) = layers(nn.Sequential(nn.Conv2d(8, 2, (3, 1))), (8, 5, 5), Plan({"0.weight": Clustered(levels, 2, 1.0)}))
    assert layer.follows(2, 4)
    assert not layer.follows(1, 4)
    levels[1, 1, 2] = 1
    (layer,) = layers(nn.Sequential(nn.Conv2d(8, 2, (3, 1))), (8, 5, 5), Plan({"0.weight": Clustered(levels, 2, 1.0)}))
    assert not layer.follows(2, 4)
    (dense,) = layers(nn.Sequential(nn.Linear(8, 2)), (8,), density=0.1)
    assert not dense.follows(2, 4), "a density is no pattern"


def test_what_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    plan = Plan({"0.weight": Affine(torch.ones(2, 4, dtype=torch.int8), torch.ones(2))})
    assert layers(model, (4,), plan)[0].levels == 1
    with pytest.raises(RecipeError, match="either a plan or a density"):
        layers(model, (4,), plan, density=0.5)
    with pytest.raises(RecipeError, match="either them or input_density"):
        layers(model, torch.ones(1, 4), input_density=0.5)
    with pytest.raises(RecipeError, match=r"density: the network has no layer '1\.weight'; there are 0\.weight"):
        layers(model, (4,), density={"1.weight": 0.5})
    with pytest.raises(RecipeError, match=r"density of '0\.weight' is a share from 0 to 1, got 50"):
        layers(model, (4,), density=50)
    with pytest.raises(MismatchError, match=r"\(2, 3\) in the plan, \(2, 4\) in the network"):
        layers(model, (4,), Plan({"0.weight": Dense(torch.ones(2, 3))}))
