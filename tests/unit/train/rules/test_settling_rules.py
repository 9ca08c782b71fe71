"""Rules that settle states: in their limits they are backpropagation, to the order that they state."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules import blocks_of, rule_of
from learning import Functional, Mixing, Skipping, backprops, batch_of, convolutional, dense, directions

IMAGE = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.arange(6) % 3


def error(network: nn.Module, x: Tensor, name: str, options: dict[str, Any]) -> float:
    """Of all directions together, relative to the gradient."""
    batch = batch_of(network, x, TARGETS)
    torch.manual_seed(1)
    with batch.blocks().steady() as chain:  # the same drops for both
        state = torch.get_rng_state()
        loss = torch.nn.functional.cross_entropy(_through(chain, x), TARGETS)
        named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        truth = torch.autograd.grad(loss, [p for _, p in named])
    torch.set_rng_state(state)
    torch.manual_seed(1)
    found = directions(rule_of(name, options), network, batch)
    assert found.keys() == {n for n, _ in named}
    wrong = sum(float((found[n] - g).square().sum()) for (n, _), g in zip(named, truth, strict=True))
    return (wrong / sum(float(g.square().sum()) for g in truth)) ** 0.5


def _through(chain: Any, x: Tensor) -> Tensor:
    for block in chain:
        x = block(x)
    return x


def network_and_inputs(make: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return make().double(), (torch.randn(6, 5).double() if make is dense else IMAGE)


NETWORKS = [dense, convolutional, Functional, Skipping, Mixing]


@pytest.mark.parametrize("make", NETWORKS)
def test_fixed_predictions_with_step_one_are_backpropagation(make: Callable[[], nn.Module]) -> None:
    network, x = network_and_inputs(make)
    count = len(blocks_of(network))
    options = {"mode": "fixed-pred", "step": 1.0}
    assert error(network, x, "predictive-coding", {**options, "steps": count}) < 1e-6
    assert error(network, x, "predictive-coding", {**options, "steps": max(1, count - 2)}) > 1e-2, "one too few"


@pytest.mark.parametrize("make", NETWORKS)
def test_exact_predictive_coding_is_backpropagation(make: Callable[[], nn.Module]) -> None:
    network, x = network_and_inputs(make)
    assert error(network, x, "predictive-coding", {"mode": "exact"}) < 1e-12


def test_strict_predictive_coding_settles_where_its_energy_is_flat() -> None:
    """With squares as the loss: values at which ``sum |v_l - f_l(v_(l-1))|^2 / 2`` has no slope, and its gradient."""
    torch.manual_seed(0)
    network, x, y = dense().double(), torch.randn(6, 5).double(), torch.randn(6, 3).double()
    batch = batch_of(network, x, y, lambda outputs, wanted: (outputs - wanted).square().sum() / 2 / len(wanted))
    found = directions(rule_of("predictive-coding", {"steps": 150, "step": 0.5}), network, batch)
    first, second, third = blocks_of(network)
    values = [first(x).detach().requires_grad_()]
    values.append(second(values[0]).detach().requires_grad_())

    def energy() -> Tensor:
        predicted = [first(x), second(values[0]), third(values[1])]
        return sum((v - p).square().sum() / 2 for v, p in zip([*values, y], predicted, strict=True))

    descent = torch.optim.LBFGS(values, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14, history_size=50)

    def closure() -> Tensor:
        descent.zero_grad()
        value = energy()
        value.backward()
        return value

    for _ in range(5):
        descent.step(closure)
    parameters = list(network.parameters())
    expected = torch.autograd.grad(energy() / len(x), parameters)
    for (name, _), slope in zip(network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[name], slope, rtol=1e-5, atol=1e-7)
    truth = backprops(network, batch)
    assert any(not torch.allclose(found[name], slope, rtol=1e-2) for name, slope in truth.items()), "it is another rule"


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("dual-propagation", {"alpha": 0.5}, 2),
        ("dual-propagation", {"alpha": 0.0}, 1),
        ("dual-propagation", {"alpha": 1.0}, 1),
        ("dual-propagation", {"alpha": 0.5, "sweeps": 3}, 2),
        ("equilibrium-propagation", {"steps": 60, "step": 0.9}, 2),
        ("equilibrium-propagation", {"steps": 60, "step": 0.9, "estimator": "one-sided"}, 1),
    ],
)
def test_the_limit_is_backpropagation_to_the_stated_order(name: str, options: dict[str, Any], order: int) -> None:
    """Half the nudge, a half or a quarter of the error."""
    network, x = network_and_inputs(dense)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    betas = (0.08, 0.04, 0.02)
    errors = [error(network, x, name, {**options, "beta": beta}) for beta in betas]
    ratios = [a / b for a, b in pairwise(errors)]
    assert errors[0] < 0.2
    assert ratios == pytest.approx([2**order] * 2, rel=0.12), errors


class Sloped(nn.Module):
    """Activations that learn themselves, and a difference that overwrites what is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.slope, self.other = nn.PReLU(8), nn.PReLU(init=0.6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        again = h
        h -= h.mean(1, keepdim=True)
        h = self.second(self.slope(h + again))
        return self.last(self.other(h))


@pytest.mark.parametrize(
    ("make", "name", "options"),
    [
        (convolutional, "dual-propagation", {}),
        (Functional, "dual-propagation", {}),
        (Skipping, "dual-propagation", {}),
        (Mixing, "dual-propagation", {}),
        (Sloped, "dual-propagation", {}),
        (Skipping, "equilibrium-propagation", {"steps": 40, "step": 0.8}),
    ],
)
def test_any_network_has_that_limit(make: Callable[[], nn.Module], name: str, options: dict[str, Any]) -> None:
    network, x = network_and_inputs(make)
    assert error(network, x, name, {**options, "beta": 1e-4}) < 1e-3


def test_a_difference_that_overwrites_what_is_read_again_is_computed_as_such() -> None:
    network, x = network_and_inputs(Sloped)
    with batch_of(network, x, TARGETS).blocks().steady() as chain:
        torch.testing.assert_close(_through(chain, x), network(x))


class Forking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("name", ["predictive-coding", "dual-propagation", "equilibrium-propagation"])
def test_networks_that_are_no_chain_are_refused_before_the_first_batch(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"structure of Forking .* backprop can"):
        rule_of(name).init(Forking())


@pytest.mark.parametrize("name", ["predictive-coding", "dual-propagation", "equilibrium-propagation"])
def test_no_graph_is_longer_than_a_block(name: str) -> None:
    torch.manual_seed(0)
    network = dense((5, 6, 6, 6, 3))
    graphs: list[int] = []

    def watch(module: nn.Module, args: Any, output: Tensor) -> None:
        graphs.append(int(output.grad_fn is not None))
        assert all(a.grad_fn is None for a in args), "the graph goes on into the block below"

    for module in network:
        if isinstance(module, nn.Linear):
            module.register_forward_hook(watch)
    directions(rule_of(name), network, batch_of(network, torch.randn(6, 5), TARGETS))
    assert sum(graphs) >= 4
