"""Normalisation corrected relative to the float network: by the formula, for narrowed networks, and at its ends."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewbits.channels import dependencies, prune_channels, zero_channels
from fewbits.errors import DataError, MismatchError
from fewbits.train import FloatStatistics, recalibrate
from networks import Residual, randomised

Batches = list[tuple[Tensor, Tensor]]


def batches(count: int = 3, size: int = 8, shape: tuple[int, ...] = (2, 6, 6)) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, *shape, generator=generator) + 0.5, torch.zeros(size)) for _ in range(count)]


def network() -> nn.Module:
    return randomised(Residual()).float().eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 9), st.sampled_from([1e-4, 1.0, 1e4]))
def test_an_untouched_network_is_untouched(seed: int, count: int, size: int, scale: float) -> None:
    """To the bit, whatever the data: far from what the statistics are of, one sample, or batches of several sizes."""
    net = randomised(Residual(), seed).float().eval()
    data = [(x * scale, y) for x, y in batches(count, size)]
    data.append((data[0][0][:1], data[0][1][:1]))
    model = copy.deepcopy(net)
    assert recalibrate(model, data, net) == 2
    assert same(model, net)
    assert model.training is False


def test_an_untouched_network_in_training_mode_is_untouched() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4), nn.BatchNorm1d(4)).train()
    net(torch.randn(16, 3))
    model = copy.deepcopy(net)
    recalibrate(model, batches(shape=(3,)), net)
    assert same(model, net)
    assert model.training
    assert net.training
    assert model[1].momentum == 0.1


def test_the_formula() -> None:
    """Of the first normalisation, by all samples at once; the second is measured behind the corrected first one."""
    net = network()
    model = copy.deepcopy(net)
    with torch.no_grad():
        model.conv1.weight[:, 0] = 0
    data = batches()
    assert recalibrate(model, data, net) == 2
    inputs = torch.cat([x for x, _ in data])
    for name in ("bn1", "bn2"):
        old, new = (entering(one, name, inputs) for one in (net, model))
        before, after = getattr(net, name), getattr(model, name)
        mean = before.running_mean + new.mean((0, 2, 3)) - old.mean((0, 2, 3))
        variance = before.running_var * new.var((0, 2, 3)) / old.var((0, 2, 3))
        close = 1e-5 if name == "bn1" else 0.05  # earlier batches came through an earlier estimate of bn1
        torch.testing.assert_close(after.running_mean.double(), mean, rtol=close, atol=close)
        torch.testing.assert_close(after.running_var.double(), variance, rtol=close, atol=close)
        assert not torch.allclose(after.running_mean, before.running_mean, atol=1e-3)


@torch.no_grad()
def entering(model: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """What goes into a layer, in float64."""
    found: list[Tensor] = []
    handle = getattr(model, name).register_forward_pre_hook(lambda module, args: found.append(args[0].double()))
    model(inputs)
    handle.remove()
    return found[0]


def test_one_batch_gives_each_layer_the_moments_that_it_has_in_the_float_network() -> None:
    """A scaled and shifted layer is undone, if the float network's means are those of the data: on all data then."""
    net = network()
    net.conv1.bias = nn.Parameter(torch.zeros(len(net.conv1.weight)))
    model = copy.deepcopy(net)
    with torch.no_grad():
        model.conv1.weight.mul_(3.0)
        model.conv1.bias.add_(0.7)
        net.bn1.eps = model.bn1.eps = 0.0
        (data,) = batches(1)
        net.bn1.running_mean.copy_(entering(net, "bn1", data[0]).mean((0, 2, 3)))
    recalibrate(model, [data], net)
    torch.testing.assert_close(model(data[0]), net(data[0]), rtol=1e-4, atol=1e-4)
    other = torch.randn(5, 2, 6, 6)
    torch.testing.assert_close(model(other), net(other), rtol=1e-4, atol=1e-4)


def test_a_narrowed_network_takes_the_kept_channels_statistics() -> None:
    """As the one whose channels are zero, and in two steps as from the network in between."""
    net = network()
    found = dependencies(net, (2, 6, 6))
    gone = found.without([group[0] for group in found.groups])
    zeros, small = copy.deepcopy(net), copy.deepcopy(net)
    zero_channels(zeros, gone)
    prune_channels(small, gone)
    data = batches()
    whole = copy.deepcopy(small)
    recalibrate(small, data, net, channels=gone)
    recalibrate(whole, data, net)
    assert same(small, whole), "the default is what the network says it lost"
    with torch.no_grad():  # channels that are gone have other statistics in one that is not narrowed; they are silent
        recalibrate(zeros, data, net)
    for name in ("bn1", "bn2"):
        mask = gone.kept.get(f"{name}.running_mean", (None,))[0]
        for attribute in ("running_mean", "running_var"):
            wide, narrow = (getattr(getattr(m, name), attribute) for m in (zeros, small))
            torch.testing.assert_close(narrow, wide if mask is None else wide[mask], rtol=1e-4, atol=1e-5)
    with pytest.raises(MismatchError, match=r"bn\d has \d+ channels, and \d+ in the float network"):
        recalibrate(copy.deepcopy(small), data, net, channels=type(gone)({}, {}))


def test_the_float_network_is_asked_once() -> None:
    net = network()
    seen = FloatStatistics(net)
    calls: list[int] = []
    net.conv1.register_forward_hook(lambda *_: calls.append(1))
    data = batches()
    first, second = copy.deepcopy(net), copy.deepcopy(net)
    with torch.no_grad():
        first.conv1.weight.mul_(2.0)
    for model in (first, second):
        recalibrate(model, data, seen)
    assert len(calls) == 2 * len(data) + len(data), "copies have the hook, too"
    assert same(second, net), "nothing of the one is left in the other"
    alone = copy.deepcopy(first)
    alone.bn1.running_mean.fill_(7.0)  # what it had before does not matter
    recalibrate(alone, data, net)
    assert same(alone, first)


def test_a_normalisation_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.layer(self.norm(self.layer(x))))

    torch.manual_seed(0)
    net = Twice().eval()
    model = copy.deepcopy(net)
    recalibrate(model, batches(shape=(4,)), net)
    assert same(model, net)
    with torch.no_grad():
        model.layer.weight.mul_(2.0)
    recalibrate(model, batches(shape=(4,)), net)
    assert not same(model, net)


@pytest.mark.parametrize("which", ["float", "new"])
@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_constant_and_infinite_channels_keep_their_variance(which: str, value: float) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    with torch.no_grad():
        net[1].running_mean.fill_(0.3)
        net[1].running_var.fill_(2.0)
        net[0].bias.zero_()
    model = copy.deepcopy(net)
    with torch.no_grad():
        (net if which == "float" else model)[0].weight[1] = value
        model[0].weight[2] *= 2.0
    recalibrate(model, batches(shape=(3,)), net)
    mean, variance = model[1].running_mean, model[1].running_var
    assert variance[1] == 2.0
    assert (mean[1] == 0.3) == (value != 0.0), "the mean of a constant is known"
    assert mean[0] == net[1].running_mean[0]
    assert variance[2] == pytest.approx(8.0)


def test_a_failed_recalibration_leaves_everything_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net(torch.randn(8, 3))
    model = copy.deepcopy(net)
    with torch.no_grad():
        model[0].weight[0] = 0
    before = copy.deepcopy(model.state_dict())

    def broken():
        yield torch.randn(8, 3), torch.zeros(8)
        raise KeyboardInterrupt

    good = torch.randn(8, 3), torch.zeros(8)
    other = nn.Sequential(nn.Linear(3, 4), nn.Identity())
    for data, original, error, text in (
        ([], net, DataError, "empty"),
        ([good, (torch.randn(8, 5), torch.zeros(8))], net, RuntimeError, "shapes"),
        (broken(), net, KeyboardInterrupt, None),
        ([good], other, MismatchError, r"\['1'\] and, of the float one, \[\]"),
    ):
        with pytest.raises(error, match=text):
            recalibrate(model, data, original)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert (model[1].momentum, model[1].training, model.training) == (0.1, True, True)
        assert not net[1]._forward_pre_hooks
        assert not model[1]._forward_pre_hooks
    assert recalibrate(nn.Linear(2, 2), [], nn.Linear(2, 2)) == 0
