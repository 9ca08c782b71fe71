"""What holds for every measure of weights."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fewbits.attach import attach, fold
from fewbits.errors import DataError
from fewbits.measure import curvature, fisher, magnitude, random, relevance, taylor
from fewbits.measure.curvature import ESTIMATORS
from fewbits.measure.relevance import COMPOSITES
from fewbits.weights import select
from networks import Residual, explain, plan_for, randomised


def by_relevance(model: nn.Module, batches, rules: str) -> dict[str, Tensor]:
    return relevance(model, batches, rules=rules).weights


def by_curvature(model: nn.Module, batches, estimator: str) -> dict[str, Tensor]:
    return curvature(model, batches, per="weight", estimator=estimator).trace


MEASURES = {
    "magnitude": magnitude,
    "random": random,
    "taylor": taylor,
    "fisher": fisher,
    **{f"curvature-{name}": partial(by_curvature, estimator=name) for name in ESTIMATORS},
    **{f"relevance-{name}": partial(by_relevance, rules=name) for name in COMPOSITES},
}
X = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return randomised(Residual()).float()


@pytest.fixture(params=MEASURES.values(), ids=MEASURES)
def measure(request):
    return request.param


def test_one_finite_score_per_weight(model, measure):
    found = measure(model, BATCHES)
    weights = select(model)
    assert list(found) == list(weights)
    for name, score in found.items():
        assert score.shape == weights[name].shape
        assert torch.isfinite(score).all()
        assert score.any()
        assert not score.requires_grad
        assert score.data_ptr() != weights[name].data_ptr()


def test_the_same_twice(model, measure):
    torch.testing.assert_close(measure(model, BATCHES), measure(model, BATCHES), rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_network_is_as_it_was(model, measure, training):
    model.train(training)
    model.bn1.train(not training)  # as where normalisation is frozen
    model(X).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    measure(model, BATCHES)
    assert [m.training for m in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_mode_is_restored_after_a_failure(model, measure):
    model.train()
    if measure in (magnitude, random):
        assert measure(model, [(X[:, :1], Y)])  # looks at no data
    else:
        with pytest.raises(DataError):
            measure(model, [(X[:, :1], Y)])
    assert all(m.training for m in model.modules())


def test_attached_and_folded_networks_have_the_same_scores(model, measure):
    attach(model, plan_for(model))
    plain = copy.deepcopy(model)
    fold(plain)
    torch.testing.assert_close(measure(model, BATCHES), measure(plain, BATCHES), rtol=1e-4, atol=1e-6)


def merged(model: Residual) -> Residual:
    """The network with each normalisation worked into the convolution before it."""
    plain = copy.deepcopy(model)
    for name, number in (("conv1", "bn1"), ("conv2", "bn2")):
        conv, norm = getattr(plain, name), getattr(plain, number)
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.detach()
        conv.weight = nn.Parameter(conv.weight.detach() * scale[:, None, None, None])
        conv.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias.detach())
        setattr(plain, number, nn.Identity())
    return plain


@pytest.mark.parametrize("name", [n for n, rules in COMPOSITES.items() if rules.norm == "fold"])
def test_relevance_does_not_depend_on_whether_normalisation_is_folded(model, name):
    model = model.double().eval()
    found, _ = explain(model, X.double(), COMPOSITES[name], inputs=True)
    other, _ = explain(merged(model), X.double(), COMPOSITES[name], inputs=True)
    torch.testing.assert_close(found.inputs, other.inputs)
    torch.testing.assert_close(found.weights, other.weights)


def test_relevance_is_the_mean_over_samples_however_they_are_batched(model):
    whole, parts = relevance(model, [(X, Y)]), relevance(model, BATCHES, inputs=True)
    assert whole.samples == parts.samples == 6
    assert whole.inputs is None
    assert parts.inputs.shape == (2, 2, 6, 6)
    torch.testing.assert_close(whole.weights, parts.weights, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("start", ["score", "probability", "ones"])
def test_the_start_is_what_the_dense_layer_shares_out(start):
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    logits = model(x).detach()
    value = {"score": logits, "probability": logits.softmax(1), "ones": torch.ones_like(logits)}[start]
    expected = value.gather(1, y[:, None])[:, 0]
    found = relevance(model, [(x, y)], start=start, inputs=True)
    torch.testing.assert_close(found.inputs.sum(1), expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.weights["0.weight"].sum(), expected.mean(), rtol=1e-3, atol=1e-6)
