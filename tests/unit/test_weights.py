"""Which tensors are compressed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewbits.errors import NonFiniteError, SelectionError
from fewbits.weights import layers, select
from fewbits.zoo import NETWORKS, build


def network() -> nn.Sequential:
    body = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU(), nn.Conv3d(1, 1, 1))
    return nn.Sequential(nn.Conv2d(1, 2, 3), body, nn.Embedding(4, 3), nn.Flatten(), nn.Linear(3, 2))


def test_the_weights_of_layers_and_nothing_else():
    model = network()
    found = select(model)
    assert list(found) == ["0.weight", "1.0.weight", "1.3.weight", "2.weight", "4.weight"]
    assert all(found[f"{path}.weight"] is module.weight for path, module in layers(model).items())


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["1.*"], [], ["1.0.weight", "1.3.weight"]),
        (["*"], ["0.*", "4.weight"], ["1.0.weight", "1.3.weight", "2.weight"]),
        (["?.weight"], [], ["0.weight", "2.weight", "4.weight"]),
        (["4.*", "0.*"], [], ["0.weight", "4.weight"]),
        (["[04].weight"], ["0.*"], ["4.weight"]),
    ],
)
def test_patterns(include, exclude, expected):
    assert list(select(network(), include, exclude)) == expected


def test_patterns_may_come_from_an_iterator():
    assert list(select(network(), iter(["1.*"]), iter(["1.0.*"]))) == ["1.3.weight"]


@pytest.mark.parametrize(("include", "exclude"), [(["0.wieght"], []), (["*"], ["0.wieght"])])
def test_a_pattern_without_a_match_is_an_error_with_a_suggestion(include, exclude):
    with pytest.raises(SelectionError, match=r"'0\.wieght' matches no weight; did you mean '0\.weight'\?"):
        select(network(), include, exclude)


def test_patterns_match_with_case():
    with pytest.raises(SelectionError, match="matches no weight"):
        select(nn.ModuleDict({"Conv": nn.Conv1d(1, 1, 1)}), ["conv.*"])


def test_biases_are_no_choice():
    with pytest.raises(SelectionError, match=r"'0\.bias' matches no weight"):
        select(network(), ["0.bias"])


def test_nothing_left_and_nothing_there():
    with pytest.raises(SelectionError, match="exclude patterns remove every weight"):
        select(network(), ["1.*"], ["*"])
    with pytest.raises(SelectionError, match="BatchNorm2d has no linear or convolutional layer"):
        select(nn.BatchNorm2d(2))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_broken_weight_is_named_with_the_count(bad):
    model = network()
    with torch.no_grad():
        model[1][0].weight[0, 0, :2] = bad
    with pytest.raises(NonFiniteError, match=r"^1\.0\.weight: 2 of 6 weights are NaN or infinite"):
        select(model)
    assert "1.0.weight" not in select(model, exclude=["1.0.*"])


def test_a_bare_layer():
    layer = nn.Linear(3, 2)
    assert list(select(layer)) == ["weight"]
    assert select(layer)["weight"] is layer.weight


def test_a_layer_under_two_names_appears_once_under_the_first():
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": shared, "b": nn.Linear(3, 1), "c": shared})
    assert list(select(model)) == ["a.weight", "b.weight"]
    assert list(select(model, ["c.*"])) == ["a.weight"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_zoos_networks(name):
    with torch.device("meta"):
        model = build(name)
    paths = list(layers(model))
    others = {n for n, p in model.named_parameters() if p.dim() > 1} - {f"{path}.weight" for path in paths}
    assert not others
    assert len(paths) == len(set(paths)) > 1
