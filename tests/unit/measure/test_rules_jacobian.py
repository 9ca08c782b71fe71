"""Every rule derived a second way: the layer as an explicit matrix, its contributions one by one."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from fewbits.measure.relevance import (
    COMPOSITES,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Rule,
    Rules,
    Tape,
    ZPlus,
    propagate,
)
from networks import Residual, explain, randomised


def one_sided() -> nn.Linear:
    """Outputs with contributions of one sign only, and one with none at all."""
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4], [0, 0, 0, 0], [1, -2, 3, -4]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5, 0.0, 0.1]))
    return layer


LAYERS = {
    "dense": (lambda: nn.Linear(6, 4), (6,)),
    "dense-without-bias": (lambda: nn.Linear(6, 4, bias=False), (6,)),
    "dense-on-sequences": (lambda: nn.Linear(3, 4), (2, 3)),
    "one-sided": (one_sided, (4,)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 5)),
    "dilated-groups": (lambda: nn.Conv2d(4, 2, 3, groups=2, dilation=2, padding=2, bias=False), (4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(3, 6, (3, 1), groups=3, padding=(1, 0)), (3, 3, 2)),
    "only-padding-seen": (lambda: nn.Conv2d(2, 2, 1, padding=1, bias=False), (2, 2, 2)),
    "1d-same": (lambda: nn.Conv1d(2, 3, 3, padding="same"), (2, 5)),
    "3d-valid": (lambda: nn.Conv3d(1, 2, 2, padding="valid"), (1, 3, 2, 3)),
}
RULES = {
    "epsilon": Epsilon(1e-3),
    "alpha2-beta1": AlphaBeta(2, 1),
    "alpha1.3-beta0.3": AlphaBeta(1.3, 0.3),
    "z+": ZPlus(),
    "gamma": Gamma(0.25, 1e-3),
    "flat": Flat(),
}


def messages(rule: Rule, p: list[float], linked: list[bool], bias: float, relevance: float) -> list[float]:
    """Relevance that one output sends to each of its inputs, by the formulas of the papers."""
    z = sum(p) + bias
    z_plus = sum(v for v in p if v > 0) + max(bias, 0)
    z_minus = sum(v for v in p if v < 0) + min(bias, 0)
    match rule:
        case Epsilon(eps):
            return [v / (z + math.copysign(eps, z)) * relevance for v in p]
        case ZPlus():
            return [max(v, 0) / z_plus * relevance if z_plus else 0.0 for v in p]
        case AlphaBeta(alpha, beta):
            if not z_minus:
                alpha = 1.0
            if not z_plus:
                beta = -1.0
            up = [alpha * max(v, 0) / z_plus if z_plus else 0.0 for v in p]
            down = [beta * min(v, 0) / z_minus if z_minus else 0.0 for v in p]
            return [(u - d) * relevance for u, d in zip(up, down, strict=True)]
        case Gamma(gamma, eps):
            sign = 1 if z >= 0 else -1
            total = z + gamma * (z_plus if z >= 0 else z_minus) + sign * eps
            return [(v + gamma * (v if v * sign > 0 else 0)) / total * relevance for v in p]
        case Flat():
            return [relevance / sum(linked) if link else 0.0 for link in linked]
    raise AssertionError(rule)


def explicit(layer: nn.Module, x: Tensor, start: Tensor, rule: Rule, weight_rule: Rule) -> tuple[Tensor, Tensor]:
    """Relevance of inputs and weights with one loop over samples, outputs and inputs."""
    of_inputs, of_weights = torch.zeros_like(x), torch.zeros_like(layer.weight)
    names = torch.arange(1.0, layer.weight.numel() + 1, dtype=torch.float64).view_as(layer.weight)
    for n in range(len(x)):
        a = x[n : n + 1]
        matrix = jacobian(layer, a).reshape(start[n].numel(), a.numel())
        kept = layer.weight.data
        layer.weight.data = names  # the Jacobian now says which weight links which input to which output
        which = jacobian(layer, a).reshape(matrix.shape).round().long()
        zero = layer(torch.zeros_like(a)).detach().flatten()
        layer.weight.data = kept
        for j, row in enumerate(matrix):
            p, linked = (row * a.flatten()).tolist(), (which[j] > 0).tolist()
            args = (p, linked, float(zero[j]), float(start[n].flatten()[j]))
            of_inputs[n].view(-1).add_(torch.tensor(messages(rule, *args), dtype=torch.float64))
            for i, message in enumerate(messages(weight_rule, *args)):
                if linked[i]:
                    of_weights.view(-1)[which[j, i] - 1] += message
    return of_inputs, of_weights


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "non-negative"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_rule_equals_its_formula(make, shape, rule, signed):
    torch.manual_seed(3)
    layer = make().double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    x = x if signed else x.clamp(min=0)
    model = nn.Sequential(layer)
    tape = Tape(model)
    with tape.watch():
        outputs = model(x)
    start = torch.randn_like(outputs)
    rules = Rules(dense=rule, conv=rule, weight=None)
    found = propagate(outputs, start, rules, tape, inputs=True)
    own = Epsilon() if isinstance(rule, Flat) else rule
    of_inputs, of_weights = explicit(layer, x, start, rule, own)
    torch.testing.assert_close(found.inputs, of_inputs, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.weights["0.weight"], of_weights, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("weight", [Epsilon(1e-3), AlphaBeta(2, 1), ZPlus()], ids=str)
@torch.no_grad()
def test_the_rule_of_the_weights_is_independent_of_the_rule_toward_the_inputs(weight):
    torch.manual_seed(4)
    layer = nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    model = nn.Sequential(layer)
    tape = Tape(model)
    with tape.watch():
        outputs = model(x)
    start = torch.randn_like(outputs)
    found = propagate(outputs, start, Rules(conv=ZPlus(), first=Flat(), weight=weight), tape, inputs=True)
    of_inputs, of_weights = explicit(layer, x, start, Flat(), weight)
    torch.testing.assert_close(found.inputs, of_inputs, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.weights["0.weight"], of_weights, rtol=1e-8, atol=1e-10)


@torch.no_grad()
def test_a_folded_normalisation_is_a_layer_with_other_weights():
    torch.manual_seed(5)
    conv, norm = nn.Conv2d(2, 3, 3).double(), nn.BatchNorm2d(3).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.normal_()
    norm.bias.normal_()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    model = nn.Sequential(conv, norm)
    tape = Tape(model)
    with tape.watch():
        outputs = model(x)
    start = torch.randn_like(outputs)
    found = propagate(outputs, start, Rules(conv=AlphaBeta(2, 1), weight=None), tape, inputs=True)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    merged = nn.Conv2d(2, 3, 3).double()
    merged.weight.copy_(conv.weight * scale[:, None, None, None])
    merged.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
    of_inputs, of_weights = explicit(merged, x, start, AlphaBeta(2, 1), AlphaBeta(2, 1))
    torch.testing.assert_close(found.inputs, of_inputs, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.weights["0.weight"], of_weights, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["plus", "alpha-beta", "paper"])
def test_bfloat16_changes_the_relevance_of_weights_by_about_a_percent(name):
    torch.manual_seed(0)
    model = randomised(Residual()).float().eval()
    x = torch.randn(8, 2, 6, 6)
    exact, _ = explain(model, x, COMPOSITES[name], inputs=True)
    rough, _ = explain(model, x, dataclasses.replace(COMPOSITES[name], precision="bfloat16"), inputs=True)
    for path, r in exact.weights.items():
        assert rough.weights[path].dtype == torch.float32
        error = float((rough.weights[path] - r).norm() / r.norm())
        assert error < 0.02
        assert (error > 0) == path.startswith("conv")
