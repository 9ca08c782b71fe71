"""Small networks that several tests share, and what is made of them: relevance, plans, integers."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.int8.form import affine_plan, calibrate, hold_affine, integer_form
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.measure.relevance import (
    Epsilon,
    Gamma,
    Propagated,
    Rule,
    Rules,
    Tape,
    propagate,
)
from fewbits.pipeline.restore import network_of
from fewbits.plan import Clustered, Plan
from fewbits.task import start_relevance
from fewbits.weights import select

SHARP = 1e-12


def small_network() -> nn.Module:
    """A convolutional network with batch normalisation for 8x8 digits, 4,200 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 30),
        nn.ReLU(),
        nn.Linear(30, 10),
    )


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64, with biases and normalisations in which nothing is trivial."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
                # Negative scales, too: they exchange positive and negative contributions.
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator).double() + 0.5)
                module.running_mean.copy_(0.3 * torch.randn(module.weight.shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.copy_(0.2 * torch.randn(bias.shape, generator=generator))
    return model


def sharp(rules: Rules) -> Rules:
    """The same rules with stabilisers that take nothing noticeable."""

    def one(rule: Rule | str | None) -> Any:
        match rule:
            case Epsilon():
                return Epsilon(SHARP)
            case Gamma():
                return Gamma(rule.gamma, SHARP)
        return rule

    changed = {f: one(getattr(rules, f)) for f in ("dense", "conv", "first", "weight", "norm")}
    return dataclasses.replace(rules, **changed, eps=SHARP)


def record(model: nn.Module, x: Tensor, account: bool = False) -> tuple[Tape, Tensor]:
    """A watched forward pass in the model's present mode, and its output."""
    tape = Tape(model, account=account)
    with tape.watch():
        logits = model(x)
    return tape, logits


def explain(
    model: nn.Module, x: Tensor, rules: Rules, account: bool = False, **options: Any
) -> tuple[Propagated, Tensor]:
    """Relevance of one batch from the score of class ``i % classes`` for sample ``i``, and its start."""
    tape, logits = record(model, x, account)
    start = start_relevance(logits.detach(), torch.arange(len(x)) % logits.shape[1])
    return propagate(logits, start, rules, tape, account=account, **options), start


def conservation_error(model: nn.Module, x: Tensor, rules: Rules) -> float:
    """What is missing between start and end, relative to the relevance that flows."""
    found, start = explain(model, x, sharp(rules), inputs=True, account=True)
    assert found.inputs is not None
    assert found.inputs.shape == x.shape
    end = float(found.inputs.sum()) + sum(found.biases.values()) + sum(found.lost.values())
    flowing = max(float(found.inputs.abs().sum()), *map(abs, found.outputs.values()), float(start.abs().sum()))
    return abs(end - float(start.sum())) / flowing


class Conv1D(nn.Module):
    """As transformers has it: weights ``[inputs, outputs]``."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Residual(nn.Module):
    """Convolution, normalisation, an addition in place, ReLU in place, pooling and a dense head."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.linear = nn.Linear(6 * 9, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        y = self.pool(self.relu(y))
        return self.linear(self.drop(y).flatten(1))


def residual(samples: int = 4) -> tuple[nn.Module, Tensor]:
    """:class:`Residual` in float32 with nothing trivial in it, and a batch for it."""
    torch.manual_seed(0)
    model = randomised(Residual()).float().eval()
    return model, torch.randn(samples, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def quantized(model: nn.Module, inputs: Tensor) -> tuple[fx.GraphModule, Plan]:
    """A network calibrated on ``inputs``, frozen, and its plan."""
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [inputs])
    hold_affine(net)
    plan = affine_plan(net)
    return network_of(plan, model), plan  # type: ignore[return-value]


def plan_for(model: nn.Module, bits: int = 3) -> Plan:
    """Every weight on the nearest point of a uniform grid."""
    entries = {}
    top = 2 ** (bits - 1) - 1
    for name, w in select(model).items():
        step = float(w.detach().abs().max()) / top
        entries[name] = Clustered((w.detach() / step).round().to(torch.int16), bits, step=step)
    return Plan(entries)
