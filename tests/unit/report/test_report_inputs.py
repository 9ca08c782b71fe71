"""What an explanation shows of inputs: curves of pixel flipping, and texts of networks by hand and of transformers."""

from __future__ import annotations

import copy
import dataclasses
import json
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.networks import torchvision
from fewbits.errors import DataError
from fewbits.measure.attribution import ATTRIBUTIONS
from fewbits.measure.flipping import blank, flipping_curve
from fewbits.measure.relevance import relevance
from fewbits.plan import Clustered, Dense, Plan
from fewbits.report import Explanation, Report, explain, page, plots
from fewbits.report._inputs import MAX_TOKENS, tokens_in
from fewbits.task.batches import Inputs
from fewbits.weights import select


class Text(nn.Module):
    """A table, a mean, a linear layer: the relevance of a token is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(12, 4), nn.Linear(4, 3, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens).mean(1))


def coarse(net: nn.Module) -> tuple[nn.Module, Plan]:
    """A copy on three levels for each weight, and its plan."""
    entries: dict[str, Any] = {name: Dense(t.detach().clone()) for name, t in net.state_dict().items()}
    for name, weight in select(net).items():
        step = float(weight.detach().abs().max()) / 3
        entries[name] = Clustered((weight.detach() / step).round().to(torch.int16), 3, step=step)
    plan, after = Plan(entries), copy.deepcopy(net)
    after.load_state_dict(plan.tensors())
    return after, plan


@pytest.fixture(scope="module")
def texts() -> tuple[Text, nn.Module, Explanation, Tensor]:
    torch.manual_seed(0)
    net = Text().eval()
    after, plan = coarse(net)
    tokens, targets = torch.randint(12, (6, 5)), torch.tensor([2, 0, 2, 1, 0, 1])
    words = {number: f"w{number}" for number in range(11)}  # one is missing
    found = explain(net, after, plan, [(tokens, targets)], tokens, targets, rules="epsilon", vocabulary=words)
    return net, after, found, tokens


def test_tokens_of_a_small_network_have_the_relevance_of_the_formula(texts: Any) -> None:
    net, after, found, tokens = texts
    assert [heat.target for heat in found.tokens] == ["0", "1", "2"]
    for heat, sample in zip(found.tokens, (1, 3, 0), strict=True):
        ids = tokens[sample].tolist()
        assert heat.tokens == tuple(f"w{i}" if i < 11 else "11" for i in ids)
        for model, values in ((net, heat.before), (after, heat.after)):
            expected = [float((model.table.weight[i] @ model.head.weight[int(heat.target)]).detach()) / 5 for i in ids]
            assert values == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert heat.opinion_before.predicted == str(int(net(tokens[sample : sample + 1]).argmax()))
        assert heat.length == 5
    assert not found.maps
    assert not found.faithfulness


def test_texts_survive_json_and_are_drawn(texts: Any, report: Report) -> None:
    found = texts[2]
    back = Explanation.from_dict(json.loads(json.dumps(found.as_dict())))
    assert back.tokens == found.tokens
    html = page(report, back)
    assert "Which tokens matter" in html
    assert "Where the networks look" not in html
    drawn = [text.get_text() for axes in plots.tokens(back).axes for text in axes.texts]
    assert sorted(drawn) == sorted(2 * [word for heat in found.tokens for word in heat.tokens])
    with pytest.raises(DataError, match="no texts"):
        plots.tokens(dataclasses.replace(found, tokens=()))


def test_long_texts_are_cut_and_a_list_names_tokens() -> None:
    net = Text().eval()
    after, plan = coarse(net)
    tokens, targets = torch.arange(90).remainder(12)[None], torch.tensor([1])
    (heat,) = explain(net, after, plan, [(tokens, targets)], tokens, targets, vocabulary=list("abcdefghijkl")).tokens
    assert len(heat.tokens) == len(heat.before) == len(heat.after) == MAX_TOKENS
    assert heat.length == 90
    assert "".join(heat.tokens[:14]) == "abcdefghijklab"
    titles = [axes.get_title(loc="left") for axes in plots.tokens(texts_of(heat)).axes]
    assert "the first 64 of 90 tokens" in titles[0]


def texts_of(heat: Any) -> Explanation:
    return Explanation((), 1, None, 0.0, 0.0, "plus", "score", tokens=(heat,))


@pytest.mark.long
def test_a_network_of_transformers_shows_what_its_mask_lets_through() -> None:
    with suppress(ImportError):  # a torchvision of another build does not import, and transformers looks for it
        torchvision()
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=40, num_labels=2, max_position_embeddings=16, **sizes)
    net = transformers.BertForSequenceClassification(config).eval()
    after, plan = coarse(net)
    ids, mask = torch.randint(1, 40, (4, 7)), torch.ones(4, 7, dtype=torch.int64)
    mask[0, 5:] = 0
    # The mask goes first: relevance has to be that of the tokens all the same.
    inputs, targets = Inputs((), {"attention_mask": mask, "input_ids": ids}), torch.tensor([1, 0, 1, 0])
    first, second = explain(net, after, plan, [(inputs, targets)], inputs, targets).tokens
    assert second.tokens == tuple(str(i) for i in ids[0, :5].tolist())
    assert first.tokens == tuple(str(i) for i in ids[1].tolist())
    whole = relevance(net, [(Inputs((), {"input_ids": ids[:1, :5]}), targets[:1])], inputs=True).inputs
    assert second.before == pytest.approx(whole[0].tolist(), rel=1e-3, abs=1e-6)


def test_tokens_are_found_among_inputs() -> None:
    ids, other = torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64)
    for inputs in (ids, Inputs((ids,), {"m": other}), Inputs((), {"m": other, "input_ids": ids})):
        assert tokens_in(inputs) is ids
    for inputs in (torch.rand(2, 3), torch.ones(2, dtype=torch.int64), Inputs((torch.rand(2, 3),), {})):
        assert tokens_in(inputs) is None


def test_curves_are_those_of_each_network_by_its_own_maps(example: Any, explanation: Explanation) -> None:
    x = example
    assert [one.method for one in explanation.faithfulness] == list(ATTRIBUTIONS)
    for one in explanation.faithfulness:
        assert one.why is None
        for model, curve in ((x.before, one.before), (x.after, one.after)):
            heat = ATTRIBUTIONS[one.method](model, x.images, x.targets, blank(x.images))
            expected = flipping_curve(model, x.images, x.targets, heat, blank(x.images))
            assert curve is not None
            assert curve.scores == pytest.approx(expected.scores, abs=1e-5)


def test_curves_survive_json_and_are_drawn(explanation: Explanation, report: Report) -> None:
    back = Explanation.from_dict(json.loads(json.dumps(explanation.as_dict())))
    assert back.faithfulness == explanation.faithfulness
    left, right = plots.flipping(back).axes
    assert len(left.lines) == len(right.lines) == len(ATTRIBUTIONS)
    scores = explanation.faithfulness[0].after
    assert scores is not None
    assert tuple(right.lines[0].get_ydata()) == scores.scores
    html = page(report, back)
    for one in explanation.faithfulness:
        assert one.before is not None
        assert f"{one.before.under:.3f}" in html
    with pytest.raises(DataError, match="no curves"):
        plots.flipping(dataclasses.replace(explanation, faithfulness=()))


def test_a_method_without_a_curve_says_why(report: Report) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    after, plan = coarse(net)
    images, targets = torch.rand(6, 1, 6, 6), torch.arange(6) % 3
    found = explain(net, after, plan, [(images, targets)], images, targets)
    (missing,) = [one for one in found.faithfulness if one.before is None]
    assert missing.method == "Grad-CAM"
    assert "No curve of Grad-CAM: Grad-CAM needs a module that gives maps" in page(report, found)
