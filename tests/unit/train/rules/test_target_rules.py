"""Target propagation: what its targets are where inverses are exact, and that the learned ones learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.train.rules import blocks_of, rule_of
from fewbits.train.rules._target_propagation import targets
from learning import Functional, Skipping, backprops, batch_of, convolutional, cosine, dense, directions

TARGETS = torch.arange(6) % 3
IMAGE = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def values(state: Any) -> dict[str, Tensor]:
    """As they are now: a rule steps them where they lie."""
    return {key: learnt["value"].clone() for key, learnt in state["feedback"].items()}


def invertible(width: int = 4, depth: int = 4) -> nn.Module:
    """Square layers and tanh: every block has an exact inverse."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        nn.init.orthogonal_(layer.weight)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def test_with_exact_inverses_targets_are_gauss_newton_steps() -> None:
    """One sample: ``t_l - h_l -> -(J^T J + damping)^-1 J^T dL/dh_(L-1)``, J from ``h_l`` to the penultimate values."""
    network, x = invertible(), torch.randn(1, 4).double()
    chain = blocks_of(network)
    hidden = chain.activations(x)[1:-1]
    h = hidden[-1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(chain[-1](h), TARGETS[:1]), h)

    def inverse(block: Any) -> Any:
        weight, bias = block.layer.weight.detach(), block.layer.bias.detach()
        return lambda h: (h.atanh() - bias) @ torch.linalg.inv(weight).T

    size = 1e-7
    found = targets(hidden, [inverse(block) for block in chain[1:-1]], -size * slope)
    for place, (target, here) in enumerate(zip(found, hidden, strict=True)):

        def above(h: Tensor, place: int = place) -> Tensor:
            for block in chain[place + 1 : -1]:
                h = block(h)
            return h

        jacobian = torch.autograd.functional.jacobian(above, here)[0, :, 0]
        wrong = []
        for damping in (1e-3, 1e-4, 0.0):
            inner = jacobian.T @ jacobian + damping * torch.eye(4).double()
            step = -torch.linalg.solve(inner, jacobian.T @ slope[0])
            wrong.append(float(((target - here)[0] / size - step).norm() / step.norm()))
        assert wrong[2] < 1e-5
        assert wrong[0] / wrong[1] == pytest.approx(10, rel=0.1)
        if place == 0:
            assert F.cosine_similarity(step, -(jacobian.T @ slope[0]), dim=0) < 0.97, "no gradient step"


def test_directions_are_the_slopes_of_local_losses_by_hand() -> None:
    torch.manual_seed(0)
    network, x = dense().double(), torch.randn(6, 5).double()
    batch = batch_of(network, x, TARGETS)
    rule = rule_of("difference-target-propagation", {"warm_up": 0, "target_step": 0.2})
    state = rule.init(network)
    v, c = (state["feedback"][f"1.{kind}"]["value"].double() for kind in ("weight", "bias"))
    found = directions(rule, network, batch, state)
    h1 = network[0](x).tanh()
    h2 = network[2](h1).tanh().detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(network[4](h2), TARGETS), h2)
    t2 = h2 - 0.2 * len(x) * slope
    t1 = h1 + (t2 @ v + c) - (h2 @ v + c)
    loss1 = (network[0](x).tanh() - t1.detach()).square().sum() / 2 / len(x) / 0.2
    loss2 = (network[2](h1.detach()).tanh() - t2.detach()).square().sum() / 2 / len(x) / 0.2
    expected = {
        "0.weight": torch.autograd.grad(loss1, network[0].weight)[0],
        "2.weight": torch.autograd.grad(loss2, network[2].weight)[0],
    }
    truth = backprops(network, batch)
    for name, slopes in (expected | {"4.weight": truth["4.weight"], "4.bias": truth["4.bias"]}).items():
        torch.testing.assert_close(found[name], slopes, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["difference-target-propagation", "direct-difference-target-propagation"])
@pytest.mark.parametrize("network", [convolutional(), Functional(), dense()], ids=["chain", "forward", "dense"])
def test_feedback_learns_and_the_network_waits_for_it(name: str, network: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5) if isinstance(network, nn.Sequential) and isinstance(network[0], nn.Linear) else IMAGE
    batch = batch_of(network.train(), x, TARGETS)
    rule = rule_of(name, {"warm_up": 2})
    state = rule.init(network)
    seen = []
    for _ in range(3):
        before = values(state)
        network.zero_grad()
        outputs, loss, state = rule.update(network, batch, state)
        seen.append(any(bool(p.grad.any()) for p in network.parameters() if p.grad is not None))
        moved = [not torch.equal(before[key], value) for key, value in values(state).items() if key in before]
        assert any(moved) or not before
        assert not any(t.requires_grad for t in (outputs, loss, *values(state).values()))
    assert seen == [False, False, True]


def test_direct_feedback_learns_to_reconstruct() -> None:
    """On a linear network ``Q_l`` goes to the pseudo-inverse of what follows: less is left of the noise."""
    torch.manual_seed(0)
    network = dense((5, 4, 4, 3), nn.Identity).double()
    with torch.no_grad():
        for layer in (0, 2, 4):
            nn.init.orthogonal_(network[layer].weight)
    x = torch.randn(64, 5).double()
    batch = batch_of(network, x, torch.arange(64) % 3)
    rule = rule_of("direct-difference-target-propagation", {"warm_up": 999, "feedback_lr": 5e-2, "feedback_decay": 0.0})
    state = rule.init(network)
    for _ in range(150):
        _, _, state = rule.update(network, batch, state)
    w1, w2 = network[2].weight.detach(), network[4].weight.detach()
    for name, ahead in {"0": w2 @ w1, "1": w2}.items():
        q = values(state)[name].double()  # [outputs, numbers of the block]
        torch.testing.assert_close(q.T, torch.linalg.pinv(ahead), rtol=0, atol=0.08)


def test_one_block_in_turn_learns() -> None:
    torch.manual_seed(0)
    network = dense()
    batch = batch_of(network, torch.randn(6, 5), TARGETS)
    rule = rule_of("direct-difference-target-propagation", {"feedback_blocks": "one"})
    state, moved = rule.init(network), []
    _, _, state = rule.update(network, batch, state)
    for _ in range(2):
        before = values(state)
        _, _, state = rule.update(network, batch, state)
        moved.append([key for key, value in values(state).items() if not torch.equal(value, before[key])])
    assert moved == [["1"], ["0"]]


def test_directions_lean_on_the_gradient_once_feedback_has_learnt() -> None:
    for name in ("difference-target-propagation", "direct-difference-target-propagation"):
        torch.manual_seed(0)
        network = dense((5, 8, 8, 3))
        x = torch.randn(128, 5)
        batch = batch_of(network, x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
        rule = rule_of(name, {"warm_up": 100, "feedback_lr": 3e-2})
        state = rule.init(network)
        for _ in range(100):
            _, _, state = rule.update(network, batch, state)
        truth = backprops(network, batch)
        found = directions(rule, network, batch, state)
        assert min(cosine(found, truth, f"{path}.weight") for path in ("0", "2")) > 0.2, name


def test_what_cannot_be_inverted_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"one layer behind another: the layers inner, outer lie on paths"):
        rule_of("difference-target-propagation").init(Skipping())
    odd = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.AvgPool1d(2), nn.Linear(72, 5), nn.Linear(5, 3))
    rule = rule_of("difference-target-propagation")
    with pytest.raises(UnsupportedError, match=r"what is around layer 4 makes \[4, 6, 6\] of \[72\]"):
        rule.update(odd, batch_of(odd, IMAGE, TARGETS), rule.init(odd))
