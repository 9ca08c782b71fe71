"""Relevance of weights taken at other weights than the network computes with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewbits.attach import attach, background, fold, held
from fewbits.errors import MismatchError
from fewbits.measure import RelevanceScorer, TrainingStep, relevance
from fewbits.measure.relevance import COMPOSITES, Rules, ZPlus, propagate
from fewbits.task import start_relevance
from fewbits.weights import select
from networks import Residual, plan_for, record


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Residual().double().eval()


X = torch.randn(4, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.arange(4)


def at(model: nn.Module, weights, rules: Rules = COMPOSITES["plus"]):
    tape, logits = record(model, X)
    return propagate(logits, start_relevance(logits, Y), rules, tape, at=weights).weights


def test_relevance_is_linear_in_the_weights_it_is_taken_at(model):
    names = list(select(model))
    parameters = dict(model.named_parameters())
    one = {name: torch.randn_like(parameters[name]) for name in names}
    two = {name: torch.randn_like(parameters[name]) for name in names}
    both = at(model, {name: 2 * one[name] - 3 * two[name] for name in names})
    parts = at(model, one), at(model, two)
    for name in names:
        torch.testing.assert_close(both[name], 2 * parts[0][name] - 3 * parts[1][name])
    torch.testing.assert_close(at(model, {n: parameters[n].detach() for n in names}), at(model, None))


def test_a_rule_that_tells_signs_apart_goes_by_the_sign_of_the_weight_it_is_taken_at(model):
    rules = Rules(conv=ZPlus(), weight=None)
    weight = model.conv2.weight.detach()
    plain = at(model, None, rules)["conv2.weight"]
    torch.testing.assert_close(at(model, {"conv2.weight": 3 * weight}, rules)["conv2.weight"], 3 * plain)
    assert plain.any()
    # Behind a negative normalisation no sign would be left alone; here all scales are 1.
    negative = at(model, {"conv2.weight": -weight.abs()}, rules)["conv2.weight"]
    assert not negative.any()


def test_background_weights_give_zeroed_weights_a_relevance():
    torch.manual_seed(0)
    model = Residual().train()
    attach(model, plan_for(model))
    scores = {}
    for on in ("background", "quantized"):
        scorer = RelevanceScorer(model, COMPOSITES["plus"], on=on)
        torch.manual_seed(1)  # dropout
        with scorer.watch():
            logits = model(X.float())
        scores[on] = scorer.scores(TrainingStep(logits, (None, Y), background(model), {}))
    for name, holder in held(model).items():
        zero = holder.levels == 0
        assert zero.any()
        assert not scores["quantized"][name][zero].any()
        assert (scores["background"][name][zero] != 0).float().mean() > 0.5
        # Elsewhere both are the same up to the ratio of the weights.
        ratio = background(model)[name].detach() / holder(background(model)[name]).detach()
        expected = (scores["quantized"][name] * ratio)[~zero]
        torch.testing.assert_close(scores["background"][name][~zero], expected, rtol=1e-4, atol=1e-7)


def test_weights_that_do_not_fit_are_refused(model):
    with pytest.raises(MismatchError, match=r"no weight 'conv1\.wieght'; did you mean 'conv1\.weight'"):
        relevance(model, [(X, Y)], at={"conv1.wieght": model.conv1.weight})
    with pytest.raises(MismatchError, match=r"conv1\.weight: .*\(2, 2\).*\(6, 2, 3, 3\)"):
        relevance(model, [(X, Y)], at={"conv1.weight": torch.zeros(2, 2)})


def test_relevance_of_the_folded_network_at_the_background_weights_is_the_scorers():
    torch.manual_seed(0)
    model = Residual().eval()
    attach(model, plan_for(model))
    weights = {name: w.detach().clone() for name, w in background(model).items()}
    scorer = RelevanceScorer(model, COMPOSITES["paper"])
    with scorer.watch():
        logits = model(X.float())
    found = scorer.scores(TrainingStep(logits, (None, Y), weights, {}))
    fold(model)
    expected = relevance(model, [(X.float(), Y)], rules="paper", at=weights).weights
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
