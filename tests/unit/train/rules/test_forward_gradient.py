"""Forward gradients: exact over a basis, unbiased over random directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules import rule_of
from fewbits.train.rules._forward_gradient import along_direction
from learning import backprops, batch_of, convolutional, dense, directions

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
TARGETS = torch.arange(6) % 3


def test_over_a_basis_it_is_the_gradient() -> None:
    torch.manual_seed(0)
    network = dense((5, 4, 3)).double()
    batch, weights = batch_of(network, X, TARGETS), dict(network.named_parameters())
    for name, slope in backprops(network, batch).items():
        for place in range(slope.numel()):
            along = {n: torch.zeros_like(p) for n, p in weights.items()}
            along[name].view(-1)[place] = 1.0
            _, _, found = along_direction(network, batch, weights, along)
            assert found == pytest.approx(float(slope.view(-1)[place]), abs=1e-10)


@pytest.mark.parametrize("distribution", ["normal", "signs"])
def test_its_mean_is_the_gradient(distribution: str) -> None:
    """As near as the spread of 150 directions says: ``|mean - g| ~ |g| sqrt(d / 150)``."""
    torch.manual_seed(0)
    network = dense((5, 3)).double()
    batch = batch_of(network, X, TARGETS)
    rule = rule_of("forward-gradient", {"directions": 150, "distribution": distribution})
    pair = directions(rule, network, batch), backprops(network, batch)
    found, truth = (torch.cat([slope.flatten() for slope in each.values()]) for each in pair)
    spread = (len(truth) / 150) ** 0.5
    assert float((found - truth).norm() / truth.norm()) < 1.5 * spread < 0.6


def test_statistics_move_once_a_step_and_dropout_is_the_same_along_every_direction() -> None:
    torch.manual_seed(0)
    network = convolutional()
    batch = batch_of(network, torch.randn(6, 1, 8, 8), TARGETS)
    directions(rule_of("forward-gradient", {"directions": 3}), network, batch)
    assert int(network[1].num_batches_tracked) == 1


def test_every_step_has_other_directions() -> None:
    network: nn.Module = dense((5, 4, 3)).double()
    batch, rule = batch_of(network, X, TARGETS), rule_of("forward-gradient")
    first, again, second = (directions(rule, network, batch, {"step": step})["0.weight"] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * slope


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return _Doubled.apply(self.layer(x))


def test_what_has_no_forward_derivative_is_named() -> None:
    network, rule = Doubling().double(), rule_of("forward-gradient")
    with pytest.raises(UnsupportedError, match=r"does not differentiate an operation forward: .*custom autograd"):
        rule.update(network, batch_of(network, X, TARGETS), rule.init(network))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 15)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).unflatten(1, (1, 5, 3))  # with heads, as its fast form needs
        return nn.functional.scaled_dot_product_attention(y, y, y).mean((1, 2))


def test_attention_is_differentiated_forward_though_its_fast_form_is_not() -> None:
    """Along a direction, the slope is what the gradient says."""
    torch.manual_seed(0)
    network = Attending()
    batch = batch_of(network, X.float(), TARGETS)
    weights = dict(network.named_parameters())
    along = {name: torch.randn_like(p) for name, p in weights.items()}
    _, _, slope = along_direction(network, batch, weights, along)
    gradients = backprops(network, batch)
    assert slope == pytest.approx(sum(float((g * along[name]).sum()) for name, g in gradients.items()), rel=1e-4)
