"""Relevance on kinds of networks: two engines agree, nothing is lost, and no weight is left without."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import second_engine
from fewbits.measure.relevance import COMPOSITES, Epsilon, Propagated, Rules, Tape, propagate
from networks import SHARP, sharp
from stand_ins import STAND_INS, run, stand_in


def rules(name: str, attention: str) -> Rules:
    return dataclasses.replace(sharp(COMPOSITES[name]), attention=attention, weight=Epsilon(SHARP))


def start_of(outputs: Tensor) -> Tensor:
    """The score of another class for each sample."""
    index = torch.arange(len(outputs))[:, None] % outputs.shape[1]
    return torch.zeros_like(outputs).scatter(1, index, outputs.detach().gather(1, index))


def found_by(model: nn.Module, inputs: dict[str, Tensor], chosen: Rules, account: bool) -> tuple[Propagated, Tensor]:
    tape = Tape(model, account=account)
    with tape.watch():
        outputs = run(model, inputs)
    start = start_of(outputs)
    return propagate(outputs, start, chosen, tape, inputs=True, account=account), start


@pytest.mark.parametrize("attention", ["half", "detach"])
@pytest.mark.parametrize("name", STAND_INS)
def test_a_second_engine_finds_the_same(name: str, attention: str) -> None:
    model, inputs = stand_in(name)
    found, start = found_by(model, inputs, rules("epsilon", attention), account=False)
    of_inputs, of_weights = second_engine.relevance(model, run, inputs, start, attention)
    for mine, other in zip(found.sources, of_inputs.values(), strict=name != "tokens"):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)
    if name == "reweighted":
        return  # there, the product takes relevance where weights enter the layer, not where they are computed from
    for path, r in found.weights.items():
        torch.testing.assert_close(
            r, of_weights[path], rtol=1e-7, atol=1e-9, msg=lambda text, path=path: f"{path}: {text}"
        )


@pytest.mark.parametrize("composite", ["epsilon", "plus"])
@pytest.mark.parametrize("name", STAND_INS)
def test_what_starts_arrives(name: str, composite: str) -> None:
    model, inputs = stand_in(name)
    found, start = found_by(model, inputs, rules(composite, "detach"), account=True)
    arrived = sum(float(r.sum()) for r in found.sources) + sum(found.biases.values()) + sum(found.lost.values())
    assert arrived == pytest.approx(float(start.sum()), rel=1e-6)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", STAND_INS)
def test_no_weight_is_left_without(name: str, composite: str) -> None:
    model, inputs = stand_in(name)
    found, _ = found_by(model, inputs, COMPOSITES[composite], account=False)
    empty = [path for path, r in found.weights.items() if not r.any()]
    assert not empty


class Reshaped(nn.Module):
    """A reshape that needs no copy though its input is not contiguous: a node of its own, as in GPT-2's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x.transpose(1, 2).reshape(2, 4, 3)).sum(1)


def test_relevance_passes_a_reshape_of_what_is_not_contiguous() -> None:
    torch.manual_seed(0)
    model, x = Reshaped().double(), torch.randn(2, 3, 4, dtype=torch.float64)
    tape = Tape(model)
    with tape.watch():
        outputs = model(x)
    found = propagate(outputs, outputs.detach(), rules("epsilon", "half"), tape, inputs=True)
    expected = x * torch.einsum("oi,no->ni", model.dense.weight.detach(), torch.ones_like(outputs))[:, :, None]
    torch.testing.assert_close(found.inputs, expected, rtol=1e-9, atol=1e-12)


class Mixed(nn.Module):
    """A dense layer with a bias on what is not contiguous: a product and an addition, as in mixers."""

    def __init__(self) -> None:
        super().__init__()
        self.across, self.head = nn.Linear(4, 5), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return (1 - self.head(self.across(x.transpose(1, 2)).mean(2))) - 0.5


def test_a_bias_that_is_added_by_itself_is_in_the_books() -> None:
    torch.manual_seed(0)
    model, x = Mixed().double(), torch.randn(2, 4, 3, dtype=torch.float64)
    found, start = found_by(model, {"": x}, rules("plus", "half"), account=True)
    arrived = float(found.inputs.sum()) + sum(found.biases.values())
    assert arrived == pytest.approx(float(start.sum()), rel=1e-9)
