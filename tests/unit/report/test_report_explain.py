"""An explanation against brute force and other libraries."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fewbits.errors import DataError, MismatchError
from fewbits.measure.relevance import relevance
from fewbits.plan import Clustered, Plan
from fewbits.report import Explanation, explain
from fewbits.report._inputs import MAX_SHOWN
from fewbits.report.correlation import pearson, ranks, spearman
from fewbits.report.explain import SAMPLED
from fewbits.weights import select


def test_shares_and_correlations_are_those_of_the_relevance(example: Any, explanation: Explanation) -> None:
    found = relevance(example.before, example.batches, rules="plus").weights
    for layer in explanation.layers:
        r, w = found[layer.name].flatten().double().numpy(), select(example.before)[layer.name]
        w = w.detach().flatten().double().numpy()
        kept = example.plan.clustered[layer.name].levels.flatten().numpy() != 0
        most = np.sort(np.abs(r))[::-1][: kept.sum()].sum()
        by_size = sum(abs(r[i]) for i in sorted(range(len(w)), key=lambda i: -abs(w[i]))[: kept.sum()])
        total = np.abs(r).sum()
        assert layer.weights == len(w)
        assert layer.total == pytest.approx(total)
        assert layer.weights_kept == pytest.approx(kept.mean())
        assert layer.relevance_kept == pytest.approx(np.abs(r)[kept].sum() / total)
        assert layer.relevance_kept_by_magnitude == pytest.approx(by_size / total)
        assert layer.relevance_kept_at_best == pytest.approx(most / total)
        assert layer.spearman == pytest.approx(scipy.stats.spearmanr(np.abs(w), np.abs(r)).statistic)
        assert layer.pearson_signed == pytest.approx(np.corrcoef(w, r)[0, 1])
        assert layer.pearson_absolute == pytest.approx(np.corrcoef(np.abs(w), np.abs(r))[0, 1])
        assert np.array_equal(layer.sampled.weight, w)  # few enough to show all
        assert np.array_equal(layer.sampled.relevance, r)
        assert np.array_equal(layer.sampled.kept, kept)
    assert [layer.name for layer in explanation.layers] == list(example.plan.clustered)


def test_totals_are_over_all_layers(example: Any, explanation: Explanation) -> None:
    found = relevance(example.before, example.batches).weights
    kept = {name: entry.levels != 0 for name, entry in example.plan.clustered.items()}
    amount = sum(float(found[name].abs().sum()) for name in kept)
    on_kept = sum(float(found[name].abs()[chosen].sum()) for name, chosen in kept.items())
    assert explanation.relevance_kept == pytest.approx(on_kept / amount)
    everything = torch.cat([chosen.flatten() for chosen in kept.values()])
    assert explanation.weights_kept == pytest.approx(float(everything.double().mean()))


def test_predictions_are_compared_on_the_batches(example: Any, explanation: Explanation) -> None:
    first, second = (model(example.images).argmax(1) for model in (example.before, example.after))
    assert explanation.samples == 40
    assert explanation.agreement == pytest.approx(float((first == second).double().mean()))
    assert explanation.accuracy_before == pytest.approx(100 * float((first == example.targets).double().mean()))
    assert explanation.accuracy_after == pytest.approx(100 * float((second == example.targets).double().mean()))


def test_heat_maps_are_of_the_first_image_of_each_class(example: Any, explanation: Explanation) -> None:
    assert [heat.target for heat in explanation.maps] == ["cat", "dog", "owl"]
    for index, heat in enumerate(explanation.maps):  # targets are 0, 1, 2, 0, ...
        image = example.images[index : index + 1]
        assert torch.equal(heat.image, image[0])
        for model, values, said in (
            (example.before, heat.before, heat.opinion_before),
            (example.after, heat.after, heat.opinion_after),
        ):
            alone = relevance(model, [(image, example.targets[index : index + 1])], inputs=True).inputs
            assert alone is not None
            torch.testing.assert_close(values, alone[0].sum(0))
            probabilities = model(image).softmax(1)[0]
            assert said.confidence == pytest.approx(float(probabilities.max().detach()), rel=1e-5)
            assert said.predicted == ["cat", "dog", "owl"][int(probabilities.argmax())]
        expected = np.corrcoef(heat.before.flatten().double(), heat.after.flatten().double())[0, 1]
        assert heat.correlation == pytest.approx(expected)


def test_it_survives_json(explanation: Explanation) -> None:
    plain = json.loads(json.dumps(explanation.as_dict(), allow_nan=False))
    back = Explanation.from_dict(plain)
    assert back.as_dict() == explanation.as_dict()
    assert back.layers == explanation.layers
    for mine, theirs in zip(explanation.maps, back.maps, strict=True):
        assert torch.equal(mine.before, theirs.before)
        assert torch.equal(mine.image, theirs.image)
    assert plain["relevance_kept"] == explanation.relevance_kept


def test_batches_may_be_readable_once_and_modes_stay(example: Any, explanation: Explanation) -> None:
    example.after.train()
    found = explain(example.before, example.after, example.plan, iter(example.batches))
    assert example.after.training
    assert not example.before.training
    example.after.eval()
    assert found.layers == explanation.layers
    assert found.agreement == explanation.agreement
    assert found.maps == ()


def test_only_images_get_heat_maps() -> None:
    model = nn.Sequential(nn.Linear(5, 3)).eval()
    plan = Plan({"0.weight": Clustered(torch.ones(3, 5, dtype=torch.int16), 2, step=0.1)})
    x, y = torch.rand(4, 5), torch.tensor([0, 1, 2, 0])
    assert explain(model, model, plan, [(x, y)], x, y).maps == ()


def test_at_most_eight_images() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 12)).eval()
    plan = Plan({"1.weight": Clustered(torch.zeros(12, 4, dtype=torch.int16), 2, step=0.1)})
    x, y = torch.rand(24, 1, 2, 2), torch.arange(24).flip(0) % 12
    found = explain(model, model, plan, [(x, y)], x, y)
    assert [heat.target for heat in found.maps] == [str(n) for n in range(MAX_SHOWN)]
    assert found.layers[0].relevance_kept == 0  # nothing is kept
    assert found.agreement == 1


def test_large_layers_are_sampled_the_same_way_every_time() -> None:
    model = nn.Sequential(nn.Linear(100, 50)).eval()
    plan = Plan({"0.weight": Clustered(torch.ones(50, 100, dtype=torch.int16), 2, step=0.1)})
    batch = [(torch.rand(4, 100), torch.tensor([0, 1, 2, 3]))]
    first, second = (explain(model, model, plan, batch).layers[0].sampled for _ in range(2))
    assert first == second
    assert len(first.weight) == SAMPLED
    every = model[0].weight.detach().flatten().tolist()
    assert set(first.weight) <= set(every)
    assert not set(first.weight) <= set(every[:4000])  # from the whole tensor


def test_mistakes_have_sentences(example: Any) -> None:
    x = example
    with pytest.raises(DataError, match="one target for each image or text"):
        explain(x.before, x.after, x.plan, x.batches, x.images)
    with pytest.raises(DataError, match="at least one sample"):
        explain(x.before, x.after, x.plan, [])
    stranger = x.plan.updated({"9.weight": Clustered(torch.ones(2, dtype=torch.int16), 2, step=0.1)})
    with pytest.raises(MismatchError, match=r"9\.weight"):
        explain(x.before, x.after, stranger, x.batches)
    misshapen = x.plan.updated({"3.weight": Clustered(torch.ones(3, 3, dtype=torch.int16), 2, step=0.1)})
    with pytest.raises(MismatchError, match=r"3.weight: \(3, 3\) in the plan, \(3, 64\)"):
        explain(x.before, x.after, misshapen, x.batches)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_correlations_agree_with_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    np.testing.assert_allclose(ranks(a), scipy.stats.rankdata(a))
    if len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1:
        assert pearson(a, b) is None
        assert spearman(a, b) is None
        return
    assert pearson(a, b) == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-9)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-9)


def test_tiny_relevances_do_not_vanish() -> None:
    a = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    found = pearson(a, a * 1e-200)
    assert found is not None
    assert math.isclose(found, 1.0)


def test_weights_that_were_only_pruned_are_not_called_clustered(example: Any, explanation: Explanation) -> None:
    from fewbits.plan import Masked
    from fewbits.report._explained import explained

    assert "of the clustered weights are left" in explained(explanation)
    entries = {
        name: Masked(entry.values(), entry.kept) if isinstance(entry, Clustered) else entry
        for name, entry in example.plan.items()
    }
    pruned = explain(example.before, example.after, Plan(entries), example.batches)
    assert pruned.kind == "pruned"
    assert "of the pruned weights are left" in explained(pruned)
    assert "clustered" not in explained(pruned)
