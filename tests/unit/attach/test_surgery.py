"""Channels removed in place: what changes, what stays, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from channel_networks import Drawn, removal
from fewbits.attach import attach, fold, plan_of
from fewbits.channel_masks import ChannelMasks, channels_of
from fewbits.channels.load import load_plan
from fewbits.channels.surgery import prune_channels
from fewbits.errors import MismatchError, RecipeError
from fewbits.plan import Dense, Plan
from fewbits.zoo import PadShortcut
from networks import plan_for

SHAPE = (2, 6, 6)


def mask(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


def network() -> Drawn:
    torch.manual_seed(0)
    return Drawn(["residual", "depthwise", "grouped"], 4, flat=True).eval()


def test_layers_say_their_new_sizes_and_keep_their_names() -> None:
    model = network()
    model.stem[0].weight.requires_grad_(False)
    small = copy.deepcopy(model)
    prune_channels(small, removal(model, SHAPE, 1))
    assert list(small.state_dict()) == list(model.state_dict())
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels // module.groups) == tuple(module.weight.shape[:2])
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.running_mean)
    assert not small.stem[0].weight.requires_grad
    assert small.head.weight.requires_grad
    small(torch.randn(2, *SHAPE)).sum().backward()
    assert {type(m) for m in small.modules()} == {type(m) for m in model.modules()}


def test_removing_twice_is_one_removal_of_the_first_network() -> None:
    model = network()
    small = copy.deepcopy(model)
    prune_channels(small, removal(small, SHAPE, 1, share=0.3))
    first = channels_of(small)
    prune_channels(small, removal(small, SHAPE, 2, share=0.3))
    both = channels_of(small)
    assert first is not None
    assert both is not None
    assert not first.equals(both)
    once = copy.deepcopy(model)
    prune_channels(once, both)
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), small.state_dict().values(), strict=True))
    assert channels_of(copy.deepcopy(small)) is not None
    assert channels_of(model) is None


def test_a_plan_knows_its_channels_and_loads_into_both_networks() -> None:
    model = network()
    small = copy.deepcopy(model)
    prune_channels(small, removal(model, SHAPE, 3))
    attach(small, plan_for(small))
    plan = plan_of(small)
    assert plan.channels is not None
    fold(small)
    assert plan.updated({}).channels is plan.channels
    for target in (network(), copy.deepcopy(small)):
        load_plan(target, plan)
        x = torch.randn(2, *SHAPE)
        assert torch.equal(target.eval()(x), small.eval()(x))
    assert plan.equals(Plan(dict(plan), plan.channels))
    assert not plan.equals(Plan(dict(plan)))


def test_tied_weights_are_cut_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    two = (mask(1, 0, 1), mask(1, 1, 0))
    prune_channels(model, ChannelMasks({"0.weight": two, "2.weight": two}, {}))
    assert model[0].weight is model[2].weight
    assert model[0].weight.shape == (2, 2)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(MismatchError, match="two names"):
        prune_channels(tied, ChannelMasks({"0.weight": two, "1.weight": (mask(0, 1, 1), mask(1, 1, 0))}, {}))


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (ChannelMasks({"stm.0.weight": (mask(1, 0, 1, 1), None, None, None)}, {}), r"did you mean 'stem\.0\.weight'"),
        (
            ChannelMasks({"stem.0.weight": (mask(1, 0, 1), None, None, None)}, {}),
            r"shape \[3, 2, 3, 3\].*\[4, 2, 3, 3\]",
        ),
        (ChannelMasks({"stem.0.weight": (mask(1, 0, 1, 1),)}, {}), "shape"),
        (ChannelMasks({"stem.1.bias": (mask(1, 0, 1, 1),)}, {"parts": (1, 1)}), "no layer 'parts' that pads"),
        (
            ChannelMasks({"parts.2.0.0.weight": (mask(*[1, 0] + 6 * [1]), None, None, None)}, {}),
            "7 channels .* 2 groups of 4",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(channels: ChannelMasks, message: str) -> None:
    model = network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(MismatchError, match=message):
        prune_channels(model, channels)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert channels_of(model) is None


def test_padding_can_only_get_less() -> None:
    model = nn.Sequential(PadShortcut(2, 6), nn.Conv2d(6, 2, 1))
    with pytest.raises(MismatchError, match=r"0\.pad: \(3, 0\) channels"):
        prune_channels(model, ChannelMasks({"1.weight": (None, mask(0, 1, 1, 1, 1, 1), None, None)}, {"0.pad": (3, 0)}))
    prune_channels(model, ChannelMasks({"1.weight": (None, mask(0, 1, 1, 1, 1, 1), None, None)}, {"0.pad": (1, 2)}))
    assert model(torch.randn(1, 2, 4, 4)).shape == (1, 2, 2, 2)


def test_masks_that_say_nothing_or_do_not_fit() -> None:
    full = ChannelMasks({"a": (mask(1, 1), None), "b": (mask(1, 0),)}, {})
    assert list(full.kept) == ["b"]
    assert full.full("b", (1,)) == (2,)
    with pytest.raises(RecipeError, match="do not fit"):
        Plan({"b": Dense(torch.zeros(2))}, full)
    with pytest.raises(RecipeError, match="truth values"):
        ChannelMasks({"a": (torch.zeros(2),)}, {})
