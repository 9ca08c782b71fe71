"""Scores that need no relevance, each worked out a second way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fewbits.errors import SelectionError
from fewbits.measure import Scores, TrainingStep, control, fisher, magnitude, random, taylor
from networks import Residual

X = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Residual().train()


def per_sample(model: nn.Module) -> dict[str, Tensor]:
    """Gradients ``[samples, *weight]`` in evaluation mode."""
    model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    fixed = {name: b.detach() for name, b in model.named_buffers()}

    class Plain(nn.Module):
        """The same network, nothing in place: function transforms cannot follow that."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            net = self.net
            x = F.relu(net.bn1(net.conv1(x)))
            y = net.bn2(net.conv2(x)) + x
            return net.linear(net.pool(F.relu(y)).flatten(1))

    plain = Plain()

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        named = {f"net.{name}": tensor for name, tensor in (weights | fixed).items()}
        return F.cross_entropy(functional_call(plain, named, (x[None],)), y[None])

    return vmap(grad(loss), in_dims=(None, 0, 0))(parameters, X, Y)


def test_magnitude(model):
    for name, score in magnitude(model).items():
        torch.testing.assert_close(score, dict(model.named_parameters())[name].abs(), check_layout=True)


def test_taylor_is_weight_times_mean_gradient(model):
    found = taylor(model, [(X[:4], Y[:4]), (X[4:], Y[4:])])  # batches of different sizes
    expected = per_sample(model)
    for name, w in model.named_parameters():
        if w.dim() > 1:
            torch.testing.assert_close(found[name], (w * expected[name].mean(0)).abs().detach(), rtol=1e-3, atol=1e-6)


def test_taylor_predicts_what_zeroing_a_weight_costs(model):
    model.double().eval()
    x = X.double()
    found = taylor(model, [(x, Y)])["conv2.weight"]
    weight = model.conv2.weight
    with torch.no_grad():
        before = F.cross_entropy(model(x), Y)
        kept = weight[1, 2, 1, 1].clone()
        weight[1, 2, 1, 1] = kept * (1 - 1e-6)
        change = (F.cross_entropy(model(x), Y) - before) / 1e-6
    assert float(found[1, 2, 1, 1]) == pytest.approx(abs(float(change)), rel=1e-3)


def test_fisher_of_single_samples_is_the_mean_squared_gradient(model):
    found = fisher(model, [(X[i : i + 1], Y[i : i + 1]) for i in range(6)])
    expected = per_sample(model)
    for name in found:
        torch.testing.assert_close(found[name], expected[name].square().mean(0), rtol=1e-3, atol=1e-8)
    larger = fisher(model, [(X, Y)])
    for name in found:
        torch.testing.assert_close(larger[name], expected[name].mean(0).square(), rtol=1e-3, atol=1e-8)


def test_random_is_reproducible_by_its_seed(model):
    one, same, other = random(model, seed=1), random(model, seed=1), random(model, seed=2)
    for name in one:
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
        assert 0 <= float(one[name].min()) < float(one[name].max()) < 1
    assert not torch.equal(one["conv1.weight"].flatten()[:9], one["conv2.weight"].flatten()[:9])


def test_unused_and_frozen_layers():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model, batch = Spare(), [(torch.ones(2, 3), torch.tensor([0, 1]))]
    assert not taylor(model, batch)["spare.weight"].any()
    expected = fisher(model, batch)
    model.used.requires_grad_(False)
    torch.testing.assert_close(fisher(model, batch), expected)
    assert not model.used.weight.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(fisher(model, batch), expected)


def test_networks_without_layers_to_score():
    with pytest.raises(SelectionError, match="no linear or convolutional layer"):
        magnitude(nn.Sequential(nn.BatchNorm1d(2)))


STEP = TrainingStep(
    outputs=torch.zeros(2, 2),
    batch=(None, torch.tensor([0, 1])),
    weights={"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[3.0]], requires_grad=True)},
    gradients={"a": torch.tensor([0.5, 3.0]), "b": torch.tensor([[-1.0]])},
)


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [("taylor", [0.5, -6.0], -3.0), ("fisher", [0.25, 9.0], 1.0), ("magnitude", [1.0, 2.0], 3.0)],
)
def test_controls_of_a_step(name, a, b):
    scorer = control(name, 0)
    with scorer.watch():
        pass
    found: Scores = scorer.scores(STEP)
    torch.testing.assert_close(found, {"a": torch.tensor(a), "b": torch.tensor([[b]])})
    assert not any(score.requires_grad for score in found.values())
    assert scorer.state() is None
    scorer.restore(None)


def test_the_random_control_is_new_at_each_step_and_goes_on_where_it_was():
    scorer = control("random", 3)
    first, state = scorer.scores(STEP), scorer.state()
    second = scorer.scores(STEP)
    assert not torch.equal(first["a"], second["a"])
    resumed = control("random", 99)
    resumed.restore(state)
    torch.testing.assert_close(resumed.scores(STEP), second, rtol=0, atol=0)
    torch.testing.assert_close(control("random", 3).scores(STEP), first, rtol=0, atol=0)
    assert {name: s.shape for name, s in first.items()} == {name: w.shape for name, w in STEP.weights.items()}
