"""Criteria re-derived from their formulas, with automatic differentiation of single samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.channels import by_chance, by_curvature, by_magnitude, by_output, by_taylor, criterion, first_samples
from fewbits.channels._criteria import CRITERIA
from fewbits.errors import DataError, RecipeError
from fewbits.weights import select
from networks import Conv1D, Residual, randomised

INPUTS = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0)).double()
TARGETS = torch.arange(6) % 4
BATCHES = [(INPUTS[:4], TARGETS[:4]), (INPUTS[4:], TARGETS[4:])]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return randomised(Residual()).eval()


def test_output_is_the_gauss_newton_form_along_a_gate(model: nn.Module) -> None:
    """Against the Jacobian of the logits in a gate on every channel, behind the normalisation."""
    places = {"conv1.weight": "bn1", "conv2.weight": "bn2", "linear.weight": "linear"}
    found = by_output(model, BATCHES, draws=400, seed=3)
    for name, path in places.items():
        width = len(select(model)[name])

        def logits(gates: Tensor, path: str, x: Tensor) -> Tensor:
            shaped = gates.reshape(1, -1, *[1] * (2 if path != "linear" else 0))
            handle = model.get_submodule(path).register_forward_hook(lambda m, i, o: o * shaped)
            try:
                return model(x)
            finally:
                handle.remove()

        wanted = torch.zeros(width).double()
        for x in INPUTS:
            ones = torch.ones(width).double()
            jacobian = torch.autograd.functional.jacobian(lambda g, p=path, v=x: logits(g, p, v[None])[0], ones)
            p = model(x[None])[0].softmax(0)
            hessian = torch.diag(p) - torch.outer(p, p)
            wanted += (jacobian.T @ hessian @ jacobian).diagonal().detach() / (2 * len(INPUTS))
        assert torch.allclose(found[name], wanted, rtol=0.35, atol=0.02 * float(wanted.max()))
        assert float((found[name] - wanted).abs().mean() / wanted.mean()) < 0.1


def test_output_leaves_the_network_as_it_was(model: nn.Module) -> None:
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for p in model.parameters():
        p.requires_grad_(False)
    a, b = by_output(model, BATCHES, seed=1), by_output(model, BATCHES, seed=1)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_taylor_is_the_squared_sum_of_weight_times_gradient(model: nn.Module) -> None:
    found = by_taylor(model, BATCHES)
    wanted = torch.zeros(6).double()
    for x, y in BATCHES:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        w = model.conv1.weight
        for c in range(6):
            wanted[c] += float((w[c] * w.grad[c]).sum().detach()) ** 2 / len(BATCHES)  # type: ignore[index]
    assert torch.allclose(found["conv1.weight"].double(), wanted, rtol=1e-5)
    for p in model.parameters():
        p.requires_grad_(False)
    assert torch.equal(by_taylor(model, BATCHES)["conv1.weight"], found["conv1.weight"])
    assert not model.conv1.weight.requires_grad


def test_curvature_is_trace_times_mean_square(model: nn.Module) -> None:
    """The exact trace of the Gauss-Newton block, weight by weight."""
    found = by_curvature(model, BATCHES, estimator="exact")["linear.weight"]
    features = []
    handle = model.linear.register_forward_hook(lambda m, i, o: features.append(i[0]))
    p = model(INPUTS).softmax(1).detach()
    handle.remove()
    trace = (p * (1 - p) * features[0].detach().square().sum(1, keepdim=True)).mean(0)
    w = model.linear.weight.detach()
    assert torch.allclose(found, trace * w.square().mean(1) / 2, rtol=1e-6)


def test_magnitudes_are_relative_to_their_layer(model: nn.Module) -> None:
    for order in (1, 2):
        found = by_magnitude(model, order=order)
        for name, w in select(model).items():
            norms = w.detach().flatten(1).abs().pow(order).sum(1).pow(1 / order)
            assert torch.allclose(found[name], norms / norms.mean())
    chance = by_chance(model, seed=4)
    assert torch.equal(chance["conv1.weight"], by_chance(model, seed=4)["conv1.weight"])


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
def test_weights_of_inputs_by_outputs_score_as_linear_layers(name: str) -> None:
    plain = nn.Sequential(nn.Flatten(2), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3), nn.Flatten(), nn.Linear(6, 4))
    plain = randomised(plain).eval()
    turned = nn.Sequential(*(Conv1D(m.out_features, m.in_features) if i in (1, 3) else m for i, m in enumerate(plain)))
    for i in (1, 3):
        turned[i].weight.data, turned[i].bias.data = plain[i].weight.detach().T.contiguous(), plain[i].bias.detach()
    found, wanted = criterion(name, turned.eval(), BATCHES), criterion(name, plain, BATCHES)
    assert found.keys() == wanted.keys()
    for weight, scores in wanted.items():
        torch.testing.assert_close(found[weight], scores)


def test_names_and_samples(model: nn.Module) -> None:
    taken = list(first_samples(BATCHES, 5))
    assert [len(y) for _, y in taken] == [4, 1]
    assert sum(len(y) for _, y in first_samples(BATCHES, 99)) == 6
    assert set(criterion("output", model, BATCHES)) == set(select(model))
    with pytest.raises(RecipeError, match="did you mean 'taylor'"):
        criterion("tailor", model, BATCHES)
    for name in ("output", "taylor", "curvature"):
        with pytest.raises(DataError):
            criterion(name, model, [])
