"""The integer form of a network, and a second computation of it with nothing but integers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, fx, nn

from fewbits import zoo
from fewbits.errors import DataError, MismatchError, NonFiniteError, SelectionError, UnsupportedError
from fewbits.int8.folding import folded
from fewbits.int8.form import affine_plan, bias_units, calibrate, hold_affine, integer_form, is_integer, load_affine
from fewbits.int8.places import grid_of, repeated
from fewbits.int8.quantizer import Quantizer, RangedQuantizer
from fewbits.pipeline.restore import network_of
from fewbits.plan import Plan
from fewbits.weights import layers
from networks import quantized, randomised, residual


@pytest.mark.parametrize("name", ["digits-net", "resnet-20", "mobilenet-v2", "wrn-22-8", "fastgrnn"])
def test_folding_changes_nothing_but_rounding(name):
    options = {"steps": 4} if name == "fastgrnn" else {}
    model = randomised(zoo.build(name, seed=0, **options)).eval()
    shape = {"fastgrnn": (6, 4), "digits-net": (1, 8, 8)}.get(name, (3, 8, 8))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net, factors = folded(model)
    left = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert bool(left) == (name == "wrn-22-8")  # in front of its convolutions: they cannot be folded
    assert bool(factors) == (name != "fastgrnn")
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(net(x), expected, atol=1e-9, rtol=1e-9)
    assert set(layers(net)) == set(layers(model))


def test_grids_are_where_integers_are_added_and_multiplied():
    model, x = residual()
    net = integer_form(model)
    # The sum's own is behind its ReLU; max pooling and reshaping need none, and the output has none.
    assert [name for name, _ in net.quantizers.named_children()] == ["x", "relu", "conv2", "relu_1"]
    assert grid_of(net)["conv1"] == "quantizers.x"
    assert grid_of(net)["conv2"] == "quantizers.relu"
    assert is_integer(net)
    assert not is_integer(model)
    with torch.no_grad():
        model(x)
    assert not hasattr(model, "quantizers")


class Interpreter(fx.Interpreter):
    """Keeps what every node gave, as it was then."""

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n] = value.clone() if isinstance(value, Tensor) else value
        return value


def levels_of(value: Tensor, grid: Quantizer) -> np.ndarray:
    return np.rint(value.numpy() / np.float32(grid.scale)).astype(np.int64) + int(grid.zero_point)


def accumulate(layer: nn.Module, given: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """A layer on integers less their zero point."""
    if isinstance(layer, nn.Linear):
        return given @ levels.T
    pad = layer.padding[0]
    given = np.pad(given, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(given, levels.shape[2:], axis=(2, 3))[:, :, :: layer.stride[0], :: layer.stride[1]]
    return np.einsum("nchwij,ocij->nohw", windows, levels)


def fused(node: fx.Node, net: fx.GraphModule) -> fx.Node | None:
    """The quantizer behind a layer, with at most a ReLU between; None for the layer that gives the output."""
    for _ in range(2):
        (node,) = node.users
        module = net.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Quantizer):
            return node
        if not isinstance(module, nn.ReLU):
            return None
    return None


SMALL = {
    "residual": residual,
    "digits-net": lambda: (
        randomised(zoo.build("digits-net", seed=0)).float().eval(),
        torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_integers_alone_give_the_fake_quantized_network(name):
    """32-bit sums of products of levels, one multiplication and a rounding per layer: what runtimes compute.

    Given the same levels, each layer's output may be one level off where float32 rounds a tie to the other side. In the
    network these few move on to the next layers, which is why outputs agree only to a fraction of a percent.
    """
    model, x = SMALL[name]()
    net, plan = quantized(model, x)
    units, inputs = bias_units(net, plan), grid_of(net)
    interpreter = Interpreter(net)
    with torch.no_grad():
        interpreter.run(x)
    compared = equal = 0
    for node, value in interpreter.values.items():
        layer = layers(net).get(str(node.target)) if node.op == "call_module" else None
        if layer is None:
            continue
        path = str(node.target)
        grid = net.get_submodule(inputs[path])
        given = levels_of(interpreter.values[node.all_input_nodes[0]], grid)
        assert given.min() >= 0
        assert given.max() <= 255
        bias = np.rint((layer.bias.detach() / units[path]).numpy()).astype(np.int64)
        entry = plan.affine[f"{path}.weight"]
        sums = accumulate(layer, given - int(grid.zero_point), entry.levels.numpy().astype(np.int64))
        sums = sums + bias.reshape(1, -1, *[1] * (sums.ndim - 2))
        assert np.abs(sums).max() < 2**31
        # The float accumulator is the integer one in units of input scale times weight scale.
        scale = units[path].numpy().reshape(1, -1, *[1] * (sums.ndim - 2))
        assert np.allclose(value.numpy(), sums * scale.astype(np.float64), rtol=1e-4, atol=1e-4 * value.abs().max())
        behind = fused(node, net)
        if behind is None:
            continue
        out = net.get_submodule(str(behind.target))
        requantized = np.rint(sums * (scale / np.float32(out.scale))).astype(np.int64) + int(out.zero_point)
        lowest = int(out.zero_point) if behind.all_input_nodes[0] is not node else 0  # a ReLU is a lower bound
        requantized = requantized.clip(lowest, 255)
        expected = levels_of(interpreter.values[behind], out)
        assert np.abs(requantized - expected).max() <= 1
        compared += expected.size
        equal += int((requantized == expected).sum())
    assert compared > 0
    assert equal >= 0.995 * compared


def test_a_quantizer_again_behind_what_only_moves_changes_nothing():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.relu = nn.ReLU()
            self.last = nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = nn.functional.pad(x, (0, 0, 0, 0, 1, 2))
            return self.last(self.relu(self.conv(x) + a))

    torch.manual_seed(0)
    model, x = Shortcut().eval(), torch.randn(2, 3, 4, 4)
    net, _ = quantized(model, x)
    more = repeated(net)
    calls = [sum(str(n.target).startswith("quantizers.") for n in g.graph.nodes) for g in (net, more)]
    assert calls[1] == calls[0] + 1  # behind the padding
    with torch.no_grad():
        assert torch.equal(net(x), more(x))


def test_one_relu_in_two_places_has_two_ranges_and_a_layer_in_two_calls_one():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.other = nn.Linear(3, 3)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.relu(self.linear(self.relu(self.other(x)))))

    net = integer_form(Twice())
    names = [name for name, _ in net.quantizers.named_children()]
    assert names == ["x", "linear_input"]
    assert grid_of(net) == {"other": "quantizers.x", "linear": "quantizers.linear_input"}

    class Thrice(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.relu(self.other(self.relu(x))))

    assert [name for name, _ in integer_form(Thrice()).quantizers.named_children()] == ["relu", "relu_1"]


def test_sums_with_constants_and_activation_functions_stay_floats():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.a(x) + self.shift) + torch.tanh(self.b(x)).view(x.size(0) + 0, 3)

    assert [name for name, _ in integer_form(Gated()).quantizers.named_children()] == ["x"]


def test_a_dead_channel_keeps_its_bias():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight[0] = 1e-30
        model[0].bias.copy_(torch.tensor([3.0, 0.1]))
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    net, plan = quantized(model.eval(), x)
    units = bias_units(net, plan)["0"]
    assert (net.get_submodule("0").bias.detach() / units).abs().max() < 2**31
    assert float(net.get_submodule("0").bias.detach()[0]) == pytest.approx(3.0, abs=1e-5)
    with torch.no_grad():
        assert torch.allclose(net(x), model(x), atol=0.05)


def test_a_bias_beyond_half_precision_stays_as_it_is():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([1e6, 0.1]))
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [torch.randn(5, 2)])
    hold_affine(net)
    plan = affine_plan(net, floats=torch.float16)
    assert plan["0.bias"].data.dtype == torch.float32
    assert plan["2.bias"].data.dtype == torch.float16


def test_training_form_and_frozen_form_agree_and_copies_are_free():
    model, x = residual()
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [x, 2 * x])
    hold_affine(net)
    plan = affine_plan(net)
    frozen = network_of(plan, model)
    with torch.no_grad():
        trained = net(x)
        assert float((trained - frozen(x)).norm() / trained.norm()) < 0.02  # biases are rounded in the frozen one
        twin = copy.deepcopy(frozen)
        assert torch.equal(twin(x), frozen(x))
    again = integer_form(model)
    load_affine(again, plan)
    with torch.no_grad():
        assert torch.equal(again(x), frozen(x))


def test_gradients_reach_weights_and_biases():
    model, x = residual()
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [x])
    hold_affine(net)
    net.train()
    net(x).square().sum().backward()
    for layer in layers(net).values():
        assert layer.parametrizations.weight.original.grad.abs().max() > 0
        assert layer.bias.grad.abs().max() > 0


def test_what_cannot_be_quantized_is_said():
    with pytest.raises(SelectionError, match="no linear or convolutional layer"):
        integer_form(nn.ReLU())

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match="cannot read the structure of Branching"):
        integer_form(Branching())
    model, x = residual()
    net = integer_form(model, RangedQuantizer)
    with pytest.raises(SelectionError, match="is in integer form already"):
        integer_form(net)
    with pytest.raises(DataError, match="yields no batch"):
        calibrate(net, [])
    with pytest.raises(NonFiniteError, match="activations at 'x'"):
        calibrate(net, [x * float("nan")])
    _, plan = quantized(model, x)
    with pytest.raises(MismatchError, match="lacks"):
        load_affine(integer_form(model), Plan({n: e for n, e in plan.items() if n != "conv1.bias"}))
