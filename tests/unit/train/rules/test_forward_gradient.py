"""Forward gradients: exact over a basis, unbiased over random directions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
    """As near as the spread of 400 directions says: ``|mean - g| ~ |g| sqrt(d / 400)``."""
    torch.manual_seed(0)
    network = dense((5, 3)).double()
    batch = batch_of(network, X, TARGETS)
    rule = rule_of("forward-gradient", {"directions": 400, "distribution": distribution})
    pair = directions(rule, network, batch), backprops(network, batch)
    found, truth = (torch.cat([slope.flatten() for slope in each.values()]) for each in pair)
    spread = (len(truth) / 400) ** 0.5
    assert float((found - truth).norm() / truth.norm()) < 1.5 * spread < 0.33


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
