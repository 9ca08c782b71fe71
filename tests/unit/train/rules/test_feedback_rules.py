"""Feedback alignment and its relatives: equal to backpropagation where the feedback is the transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.train.rules import Batch, rule_of
from fewbits.train.rules._feedback import transposed
from fewbits.weights import layers
from learning import Functional, Mixing, Skipping, backprops, batch_of, convolutional, cosine, dense, directions

IMAGE = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.arange(6) % 3


def assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, slope in theirs.items():
        torch.testing.assert_close(mine[name], slope, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(5, 3),
        nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(0, 1), dilation=(1, 2)),
        nn.Conv2d(4, 6, 4, padding="same"),
        nn.Conv2d(4, 6, 3, padding="same", dilation=3),
        nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular"),
        nn.Conv2d(4, 6, 5, stride=3),
        nn.Conv3d(4, 4, 2),
    ],
    ids=str,
)
def test_the_transpose_is_what_autograd_says(layer: Any) -> None:
    shape = {nn.Linear: (2, 5), nn.Conv1d: (2, 4, 9), nn.Conv3d: (2, 4, 3, 4, 5)}.get(type(layer), (2, 4, 8, 9))
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    errors = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, errors)
    torch.testing.assert_close(transposed(layer, layer.weight, errors, x.shape), expected)


@pytest.mark.parametrize("make", [dense, convolutional, Functional, Skipping, Mixing])
def test_feedback_by_the_transpose_is_backpropagation(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make().double()
    batch = batch_of(network, torch.randn(6, 5).double() if make is dense else IMAGE, TARGETS)
    state = {"feedback": {path: layer.weight.detach().clone() for path, layer in layers(network).items()}}
    torch.manual_seed(1)
    expected = backprops(network, batch)
    torch.manual_seed(1)
    found = directions(rule_of("feedback-alignment"), network, batch, state)
    assert_same(found, expected)
    other = directions(rule_of("feedback-alignment"), network, batch)
    assert any(not torch.allclose(other[name], slope) for name, slope in expected.items())


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=self.first(input=x).tanh())


def test_layers_that_are_called_by_names_are_rerouted_too() -> None:
    torch.manual_seed(0)
    network = Named().double()
    batch, rule = batch_of(network, torch.randn(6, 5).double(), TARGETS), rule_of("feedback-alignment")
    truth, found = backprops(network, batch), directions(rule, network, batch)
    torch.testing.assert_close(found["last.weight"], truth["last.weight"])
    assert cosine(found, truth, "first.weight") < 0.9


def linear_chain(widths: tuple[int, ...] = (5, 8, 6, 3)) -> nn.Module:
    return dense(widths, nn.Identity).double()


def test_direct_feedback_by_the_transpose_of_all_that_follows_is_backpropagation() -> None:
    torch.manual_seed(0)
    network = linear_chain()
    batch = batch_of(network, torch.randn(6, 5).double(), TARGETS)
    w1, w2 = network[2].weight.detach(), network[4].weight.detach()
    state = {"feedback": {"2": w2 @ w1, "4": w2}}
    assert_same(directions(rule_of("direct-feedback-alignment"), network, batch, state), backprops(network, batch))


def test_direct_feedback_reaches_each_layer_by_itself() -> None:
    """By hand: ``d_l = (B_l e) * f'(a_l)``."""
    torch.manual_seed(0)
    network, x = dense().double(), torch.randn(6, 5).double()
    batch, rule = batch_of(network, x, TARGETS), rule_of("direct-feedback-alignment", {"seed": 3})
    state = rule.init(network)
    found = directions(rule, network, batch, state)
    a1 = network[0](x)
    a2 = network[2](a1.tanh())
    logits = network[4](a2.tanh())
    e = (logits.softmax(1) - F.one_hot(TARGETS, 3)) / len(x)
    b2, b4 = (state["feedback"][path].double() for path in ("2", "4"))
    expected = {
        "0": ((e @ b2) * (1 - a1.tanh() ** 2)).T @ x,
        "2": ((e @ b4) * (1 - a2.tanh() ** 2)).T @ a1.tanh(),
        "4": e.T @ a2.tanh(),
    }
    for path, slope in expected.items():
        torch.testing.assert_close(found[f"{path}.weight"], slope.detach())


@pytest.mark.parametrize("name", ["feedback-alignment", "direct-feedback-alignment"])
def test_the_forward_weights_align_with_the_feedback(name: str) -> None:
    """The angle to the gradient falls below 90 degrees on a linear network while it trains (Lillicrap et al. 2016)."""
    angles = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = linear_chain((20, 30, 30, 10))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(0.05)
        x = torch.randn(200, 20).double()
        y = x @ torch.randn(20, 10).double()
        rule = rule_of(name, {"seed": seed})
        batch = batch_of(network, x, y, F.mse_loss)
        state, seen = rule.init(network), []
        for _ in range(150):
            truth = backprops(network, batch)
            found = directions(rule, network, batch, state)
            seen.append(min(cosine(found, truth, f"{path}.weight") for path in ("0", "2")))
            with torch.no_grad():
                for key, parameter in network.named_parameters():
                    parameter.sub_(0.05 * found[key])
        angles.append((seen[0], seen[-1]))
    assert max(first for first, _ in angles) < 0.35
    assert min(last for _, last in angles) > 0.5, "below 60 degrees"


@pytest.mark.parametrize("magnitude", ["uniform", "batch", "fixed"])
def test_signs_are_shared_and_magnitudes_are_not(magnitude: str) -> None:
    torch.manual_seed(0)
    network = linear_chain()
    with torch.no_grad():
        network[4].weight[0] = 0.0
    x = torch.randn(6, 5).double()
    batch, rule = batch_of(network, x, TARGETS), rule_of("sign-symmetry", {"magnitude": magnitude})
    state = rule.init(network)
    truth = backprops(network, batch)
    first = directions(rule, network, batch, state)
    assert all(cosine(first, truth, f"{path}.weight") > 0.5 for path in ("0", "2"))
    torch.testing.assert_close(first["4.weight"], truth["4.weight"])
    second = directions(rule, network, batch, {**state, "step": 1})
    assert torch.equal(first["0.weight"], second["0.weight"]) == (magnitude != "batch")
    if magnitude == "uniform":  # by hand
        e = (network(x).softmax(1) - F.one_hot(TARGETS, 3)) / len(x)
        size = (2 / (6 + 3)) ** 0.5
        d2 = (e @ network[4].weight.sign() * size).T @ network[0](x)
        torch.testing.assert_close(first["2.weight"], d2.detach())


def test_what_is_forward_at_zero_hands_no_error_back() -> None:
    torch.manual_seed(0)
    network = linear_chain()
    with torch.no_grad():
        network[4].weight.zero_()
    found = directions(rule_of("sign-symmetry"), network, batch_of(network, torch.randn(6, 5).double(), TARGETS))
    assert not found["2.weight"].any()


def test_nothing_stays_on_the_network() -> None:
    network = convolutional()
    batch: Batch = batch_of(network, IMAGE.float(), TARGETS)
    outputs, loss, _ = rule_of("feedback-alignment").update(network, batch, rule_of("feedback-alignment").init(network))
    assert not outputs.requires_grad
    assert not loss.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)


@pytest.mark.parametrize("name", ["feedback-alignment", "direct-feedback-alignment", "sign-symmetry"])
def test_weights_that_errors_would_go_through_are_named(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{name}: mix.in_proj_weight is of MultiheadAttention"):
        rule_of(name).init(Attention())


def test_direct_feedback_says_which_layer_it_does_not_fit() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(2, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).view(-1, 2)).view(-1, 4))

    network, rule = Rows(), rule_of("direct-feedback-alignment")
    with pytest.raises(UnsupportedError, match=r"inputs of b have the shape \[12, 2\] and outputs \[6, 3\]"):
        rule.update(network, batch_of(network, torch.randn(6, 5), TARGETS), rule.init(network))


def test_options_are_checked() -> None:
    with pytest.raises(RecipeError, match=r"no rule 'feedback'; did you mean 'feedback-alignment'\?"):
        rule_of("feedback")
    with pytest.raises(RecipeError, match="rule sign-symmetry: no option 'magnitud'; did you mean 'magnitude'"):
        rule_of("sign-symmetry", {"magnitud": "fixed"})
    with pytest.raises(RecipeError, match=r"rule sign-symmetry: magnitude is one of uniform, batch, fixed, got 'no'"):
        rule_of("sign-symmetry", {"magnitude": "no"})
    with pytest.raises(RecipeError, match="rule feedback-alignment: seed is no truth value, got true"):
        rule_of("feedback-alignment", {"seed": True})
    with pytest.raises(RecipeError, match=r"rule backprop: no option 'seed' \(it has none"):
        rule_of("backprop", {"seed": 1})


@pytest.mark.parametrize("rule", ["direct-feedback-alignment", "direct-difference-target-propagation"])
def test_outputs_may_be_one_number_of_each_sample(rule: str) -> None:
    """As a row of one number: the same directions."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    flat = nn.Sequential(*network, nn.Flatten(0))
    x, y = torch.randn(7, 6), torch.randn(7)
    options = {} if rule == "direct-feedback-alignment" else {"warm_up": 0}

    def found(net: nn.Module, targets: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(1)
        return directions(rule_of(rule, options), net, batch_of(net, x, targets, nn.functional.mse_loss))

    ours, wanted = found(flat, y), found(network, y[:, None])
    assert ours.keys() == wanted.keys()
    for name, slope in wanted.items():
        torch.testing.assert_close(ours[name], slope)
