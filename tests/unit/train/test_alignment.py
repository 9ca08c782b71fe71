"""Angles between directions and gradients, on the way."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from fewbits.recipe.training import Training
from fewbits.train import Alignment, fit, plain
from fewbits.train.alignment import angle
from fewbits.train.loop import optimizer_of, parameter_groups
from fewbits.train.rules import rule_of
from learning import backprops, batch_of, cosine, directions


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Dropout(0.1), nn.Linear(12, 3)]
    return nn.Sequential(*layers)


X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
BATCHES = [(part, (part[:, 0] > 0).long() + (part[:, 1] > 0).long()) for part in X.split(16)]


def trained(name: str, net: nn.Module, callback: Alignment | None = None, epochs: float = 2) -> nn.Module:
    settings = Training(epochs=epochs, lr=1e-2, schedule="constant")
    torch.manual_seed(3)
    optimizer = optimizer_of(parameter_groups(net, settings), settings)
    fit(net, BATCHES, plain(), optimizer, settings, callback=callback, rule=rule_of(name))
    return net


def test_the_angle_of_two_tensors() -> None:
    assert angle(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(45)
    assert angle(torch.tensor([2.0]), torch.tensor([-3.0])) == pytest.approx(180)
    assert angle(torch.zeros(2), torch.ones(2)) is None
    assert angle(None, torch.ones(2)) is None


def test_angles_are_those_of_the_step_and_the_training_is_not_touched() -> None:
    """Dropout draws the same mask for the copy: it begins from the same random numbers only if the rule drew none."""
    net = network()
    watch = Alignment(net, every=3)
    trained("feedback-alignment", net, watch)
    alone = trained("feedback-alignment", network())
    for key, value in alone.state_dict().items():
        assert torch.equal(net.state_dict()[key], value)
    assert [step for step, _ in watch.angles["0.weight"]] == [0, 3, 6]
    assert set(watch.angles) == {"0.weight", "1.weight", "3.weight"}


def test_the_first_angle_is_that_of_one_step_by_hand() -> None:
    net = network()
    net[2] = nn.Identity()
    before = copy.deepcopy(net)
    watch = Alignment(net)
    trained("feedback-alignment", net, watch, epochs=0.25)
    batch = batch_of(before, *BATCHES[0])
    mine, theirs = directions(rule_of("feedback-alignment"), before, batch), backprops(before, batch)
    for name in ("0.weight", "1.weight", "3.weight"):
        wanted = math.degrees(math.acos(min(1.0, cosine(mine, theirs, name))))
        assert watch.angles[name][0][1] == pytest.approx(wanted, abs=0.1)


def test_backpropagation_is_its_own_direction_and_feedback_comes_to_lean_on_it() -> None:
    def ends(name: str) -> tuple[float, float]:
        net = network()
        net[2] = nn.Identity()
        watch = Alignment(net)
        trained(name, net, watch, epochs=30)
        return watch.angles["0.weight"][0][1], watch.angles["0.weight"][-1][1]

    assert max(ends("backprop")) < 0.1
    first, last = ends("feedback-alignment")
    assert last < min(first, 80)


def test_a_network_that_drops_at_random_is_compared_with_the_same_drops() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(BATCHES[0][0][0].numel(), 8), nn.Dropout(0.5), nn.Linear(8, 3))
    watch = Alignment(net)
    trained("backprop", net, watch, epochs=2)
    assert max(degrees for angles in watch.angles.values() for _, degrees in angles) < 0.1
