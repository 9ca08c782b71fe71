"""Mono-Forward and Forward-Forward: each block learns by a loss of its own, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules import rule_of
from fewbits.train.rules._forward_forward import labelled, mixed
from learning import Skipping, batch_of, convolutional, dense, directions

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return dense((5, 8, 6, 3))


def test_mono_forward_is_the_gradient_of_each_blocks_own_loss() -> None:
    net, rule = network(), rule_of("mono-forward")
    _, _, state = rule.update(net, batch_of(net, X, Y), rule.init(net))
    matrices = [m["value"].clone() for m in state["projections"]]
    found = directions(rule, net, batch_of(net, X, Y), state)
    given = X
    for number, key in ((0, 0), (2, 1), (4, None)):
        out = net[number](given)
        out = out if key is None else torch.tanh(out)
        loss = F.cross_entropy(out if key is None else out @ matrices[key].T, Y)
        layer = net[number]
        every = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        for (name, _), slope in zip(net.named_parameters(), every, strict=True):
            if name.startswith(f"{number}."):
                torch.testing.assert_close(found[name], slope)
            else:
                assert slope is None, f"the loss of {layer} reaches {name}"
        given = out.detach()


def test_the_loss_of_a_later_block_does_not_move_an_earlier_one() -> None:
    """Other targets for the network's outputs alone: only the last block learns something else."""
    net, other = network(), network()
    with torch.no_grad():
        other[4].weight.mul_(-3)
    first, second = (directions(rule_of("mono-forward"), n, batch_of(n, X, Y)) for n in (net, other))
    for name in first:
        assert torch.equal(first[name], second[name]) == (not name.startswith("4."))


def test_projections_learn_too_and_depend_on_the_seed() -> None:
    net = network()
    batch = batch_of(net, X, Y)

    def after(steps: int, **options: Any) -> torch.Tensor:
        rule = rule_of("mono-forward", options)
        state = rule.init(net)
        for _ in range(steps):
            _, _, state = rule.update(net, batch, state)
        found: torch.Tensor = state["projections"][0]["value"].clone()
        return found

    assert torch.equal(after(1), after(1))
    assert not torch.equal(after(1), after(2))
    assert not torch.equal(after(1), after(1, seed=1))
    assert after(1).shape == (3, 8)


def test_residual_blocks_learn_as_one() -> None:
    torch.manual_seed(0)
    net, images = Skipping(), torch.randn(4, 1, 6, 6)
    found = directions(rule_of("mono-forward"), net, batch_of(net, images, Y[:4]))
    assert found.keys() == dict(net.named_parameters()).keys()


def test_outputs_that_are_no_classes_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3))
    batch = batch_of(net, torch.randn(2, 1, 6, 6), torch.zeros(2, 2, 2, dtype=torch.long))
    with pytest.raises(UnsupportedError, match=r"mono-forward projects.*\[2, 3, 2, 2\]: take backprop"):
        rule_of("mono-forward").update(net, batch, rule_of("mono-forward").init(net))


@pytest.mark.parametrize("rule", ["forward-forward", "scff"])
def test_goodness_rises_for_positive_and_falls_for_negative_data(rule: str) -> None:
    net = network()
    found = directions(rule_of(rule, {"threshold": 0.3}), net, batch_of(net, X, Y))
    logits = net(X).detach()
    positive, negative = labelled(X, Y, logits) if rule == "forward-forward" else mixed(X, Y, logits)
    for number in (0, 2):
        parameters = list(net[number].parameters())
        good, bad = (torch.tanh(net[number](part)).square().mean(1) for part in (positive, negative))
        loss = torch.log1p(torch.exp(0.3 - good)).mean() + torch.log1p(torch.exp(bad - 0.3)).mean()
        for name, slope in zip(("weight", "bias"), torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(found[f"{number}.{name}"], slope)
        positive, negative = (torch.tanh(net[number](part)).detach() for part in (positive, negative))
    own = torch.autograd.grad(F.cross_entropy(net(X), Y), list(net[4].parameters()))
    torch.testing.assert_close(found["4.weight"], own[0])


def test_labels_are_written_over_the_first_values() -> None:
    logits = torch.zeros(12, 3)
    logits[:, 2] = 1  # the likeliest, so the wrong one unless it is right
    right, wrong = labelled(X, Y, logits)
    most = X.abs().amax(1, keepdim=True)
    torch.testing.assert_close(right[:, :3], most * F.one_hot(Y, 3))
    assert torch.equal(right[:, 3:], X[:, 3:])
    chosen = wrong[:, :3].argmax(1)
    assert bool((chosen != Y).all())
    assert bool((chosen[Y != 2] == 2).all())


def test_mixtures_are_of_two_different_samples_whatever_their_order() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    same, mixture = mixed(X, Y, X)
    with pytest.raises(UnsupportedError, match="scff averages inputs, and these are int64: take mono-forward"):
        mixed(torch.ones(12, 5, dtype=torch.long), Y, X)
    assert torch.equal(same, X)
    assert not bool((mixture == X).all(1).any())
    torch.testing.assert_close(mixed(X[order], Y, X)[1], mixture[order])


def test_forward_forward_needs_classes_and_room_for_them() -> None:
    with pytest.raises(UnsupportedError, match="no room for 3 labels: take scff"):
        labelled(X[:, :2], Y, torch.zeros(12, 3))
    with pytest.raises(UnsupportedError, match="this task has none: take scff"):
        labelled(X, Y.float(), torch.zeros(12, 3))
    net = convolutional()
    directions(rule_of("forward-forward"), net, batch_of(net, torch.randn(12, 1, 8, 8), Y))
