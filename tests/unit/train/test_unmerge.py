"""Training from a loaded file: normalisation that was merged gets statistics of its own first."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fewbits as fb
from fewbits.attach._normalisation import merge_statistics
from fewbits.train import unmerge_statistics


def network(seed: int = 0, trained: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5),
    )  # fmt: skip
    for norm in (net[1], net[4], net[8]) if trained else ():
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
            norm.running_mean.normal_(std=3)
            norm.running_var.uniform_(0.01, 30)
    return net.eval()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), scale=st.sampled_from([0.05, 1.0, 20.0]), parts=st.integers(1, 3))
def test_it_computes_the_same_and_in_training_mode_too(seed: int, scale: float, parts: int) -> None:
    net = network(seed)
    x = scale * torch.randn(24, 1, 8, 8)
    expected = net(x)
    assert merge_statistics(net) == 3
    if scale == 20.0:
        assert (net.train()(x) - net.eval()(x)).abs().max() > 0.1  # what is mended; it changes no statistics of use
        net = network(seed)
        merge_statistics(net)
    assert unmerge_statistics(net, list(x.chunk(parts))) == 3
    torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(copy.deepcopy(net).train()(x), expected, rtol=1e-3, atol=1e-3)
    again = copy.deepcopy(net)
    merge_statistics(again)
    torch.testing.assert_close(again(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("trained", [True, False])
def test_others_are_left_alone_and_nobody_is_asked(trained: bool) -> None:
    net = network(trained=trained)
    before = copy.deepcopy(net.state_dict())

    def inputs():
        raise AssertionError("asked for inputs")
        yield

    assert unmerge_statistics(net, inputs()) == 0
    assert unmerge_statistics(nn.Linear(3, 2), inputs()) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_zero_gains_one_channel_and_shared_scales() -> None:
    net = network(trained=False)
    net[4].weight.data.zero_()  # how residual branches begin
    assert unmerge_statistics(net, [torch.randn(4, 1, 8, 8)]) == 0
    one = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)).eval()
    assert unmerge_statistics(one, [torch.randn(4, 3)]) == 0
    one[1].weight.data.fill_(0.3)
    assert unmerge_statistics(one, [torch.randn(4, 3)]) == 1
    two = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 5), nn.BatchNorm1d(5)).eval()
    two[1].weight.data.uniform_()
    two[3].weight = two[1].weight  # no file merges these
    assert merge_statistics(two) == 0
    assert unmerge_statistics(two, [torch.randn(4, 3)]) == 0


def test_constant_channels_and_those_that_nothing_reaches() -> None:
    net = network()
    net[0].weight.data[2] = 0
    net.spare = nn.BatchNorm2d(4)
    with torch.no_grad():
        net.spare.weight.uniform_()
    net.forward = lambda x: nn.Sequential(*list(net)[:-1])(x)
    x = torch.randn(16, 1, 8, 8)
    expected = net(x)
    merge_statistics(net)
    assert unmerge_statistics(net, [x]) == 3
    torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-3)
    assert net[1].running_var[2] == 0
    first = net[1].weight[2].item()
    merge_statistics(net)
    unmerge_statistics(net, [x])
    assert net[1].weight[2].item() == pytest.approx(first, rel=1e-3)  # it does not grow from file to file


def test_a_loaded_network_trains_from_what_it_computes(tmp_path) -> None:
    net = network()
    fb.compress(net, recipe={"assign": {"method": "ecq", "bits": 8}, "train": None}).save(tmp_path / "a.few")
    loaded = fb.load(tmp_path / "a.few", like=network(1))
    data = [(5 * torch.randn(64, 1, 8, 8), torch.randint(5, (64,))) for _ in range(4)]
    x = torch.cat([inputs for inputs, _ in data])
    assert loaded[1].running_mean.count_nonzero() == 0
    hardly = fb.train(loaded, data, epochs=10, lr=1e-12, progress=None)
    assert (hardly(x) - loaded(x)).abs().max() < 0.2 * loaded(x).std()
    assert loaded[1].running_mean.count_nonzero() == 0  # the network given is not changed
