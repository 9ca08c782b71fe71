"""Relevance of inputs against two independent implementations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import oracle_zennit
from fewbits.measure.relevance import AlphaBeta, Epsilon, Flat, Gamma, Rules, ZPlus
from networks import SHARP, explain, randomised


def network(average: bool = True) -> nn.Module:
    torch.manual_seed(0)
    pool = nn.AvgPool2d(2) if average else nn.MaxPool2d(2)
    return randomised(
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, stride=1),
            nn.ReLU(),
            pool,
            nn.Flatten(),
            nn.Linear(8, 10),
            nn.ReLU(),
            nn.Linear(10, 4),
        )
    ).eval()


def images() -> Tensor:
    return torch.randn(4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def of_zennit(model: nn.Module, x: Tensor, start: Tensor, conv: str, first: str | None = None) -> Tensor:
    oracle_zennit.load()
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite
    from zennit.rules import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, ZPlus
    from zennit.types import Activation, AvgPool, Convolution

    rules = {
        "epsilon": Epsilon(SHARP),
        "z+": ZPlus(SHARP),
        "alpha-beta": AlphaBeta(2, 1, SHARP),
        "gamma": Gamma(0.25, SHARP),
        "flat": Flat(SHARP),
    }
    layers = [
        (Activation, Pass()),
        (AvgPool, Norm(SHARP)),
        (Convolution, rules[conv]),
        (nn.Linear, Epsilon(SHARP)),
    ]
    if first is None:
        composite = LayerMapComposite(layer_map=layers)
    else:
        composite = SpecialFirstLayerMapComposite(layer_map=layers, first_map=[(Convolution, rules[first])])
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x.clone(), start)[1].detach()


OURS = {
    "epsilon": Epsilon(SHARP),
    "z+": ZPlus(),
    "alpha-beta": AlphaBeta(2, 1),
    "gamma": Gamma(0.25, SHARP),
    "flat": Flat(),
}


@pytest.mark.parametrize("average", [True, False], ids=["average", "max"])
@pytest.mark.parametrize(
    ("conv", "first"),
    [
        ("epsilon", None),
        ("z+", None),
        ("alpha-beta", None),
        ("gamma", None),
        ("z+", "flat"),
        ("gamma", "flat"),
    ],
)
def test_agrees_with_zennit(conv, first, average):
    model, x = network(average), images()
    rules = Rules(Epsilon(SHARP), OURS[conv], first and OURS[first], eps=SHARP)
    found, start = explain(model, x, rules, inputs=True)
    theirs = of_zennit(model, x, start, conv, first)
    assert float(theirs.abs().max()) > 1e-3
    torch.testing.assert_close(found.inputs, theirs, rtol=1e-6, atol=1e-9)


def test_gamma_agrees_with_zennit_on_negative_outputs():
    torch.manual_seed(2)
    model = randomised(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(12, 4)))
    x = images()[:, :, :6, :6]
    found, start = explain(model, x, Rules(Epsilon(SHARP), Gamma(0.25, SHARP)), inputs=True)
    torch.testing.assert_close(found.inputs, of_zennit(model, x, start, "gamma"), rtol=1e-6, atol=1e-9)


def test_alpha_beta_keeps_relevance_where_zennit_doubles_it():
    """An output that only positive contributions make: both of alpha's shares would be handed on."""
    model = nn.Sequential(nn.Conv2d(2, 4, 8), nn.Flatten(), nn.Linear(4, 4)).double()
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.zero_()
        model[2].bias.zero_()
    x = images().abs()
    rules = Rules(Epsilon(SHARP), AlphaBeta(2, 1))
    found, start = explain(model, x, rules, inputs=True)
    theirs = of_zennit(model, x, start, "alpha-beta")
    sums = (1, 2, 3)
    torch.testing.assert_close(found.inputs.sum(sums), start.sum(1))
    torch.testing.assert_close(theirs.sum(sums), 2 * start.sum(1))
    torch.testing.assert_close(theirs, 2 * found.inputs)


class Unflattened(nn.Module):
    """The network with its flattening as a function: captum knows no rule for the layer."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer for layer in layers if not isinstance(layer, nn.Flatten))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


@pytest.mark.parametrize("rule", ["epsilon", "alpha1-beta0"])
def test_agrees_with_captum(rule):
    pytest.importorskip("captum", reason="captum, the oracle for relevance, is not installed")
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    # captum's alpha-beta rule means inputs >= 0, and counts a negative bias among the positive contributions.
    model, x = network(average=False), images().abs()
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.bias.data.abs_()
    ours = Epsilon(SHARP) if rule == "epsilon" else ZPlus()
    found, start = explain(model, x, Rules(Epsilon(SHARP), ours, eps=SHARP), inputs=True)
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            zplus = rule != "epsilon" and isinstance(layer, nn.Conv2d)
            layer.rule = Alpha1_Beta0_Rule() if zplus else EpsilonRule(SHARP)
    target = start.abs().argmax(1)
    theirs = LRP(Unflattened(model)).attribute(x.clone().requires_grad_(), target=target).detach()
    torch.testing.assert_close(found.inputs, theirs, rtol=1e-6, atol=1e-7)
