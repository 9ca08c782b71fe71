"""A normalisation whose channels are not those of the layer before it: nothing of the one may go into the other."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits.attach import merge_statistics
from fewbits.errors import UnsupportedError
from fewbits.graph import biased, graph_of
from fewbits.graph.norm_pairs import across
from fewbits.task import run


class Tokens(nn.Module):
    """A normalisation over tokens behind a layer over features; as many of both, or not."""

    def __init__(self, tokens: int = 6, features: int = 6) -> None:
        super().__init__()
        self.mix = nn.Linear(features, features)
        self.norm = nn.BatchNorm1d(tokens)
        self.head = nn.Linear(features * tokens, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.mix(x)).flatten(1))


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """With statistics, scales and shifts of its own."""
    model.train()
    for _ in range(5):
        model(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.mark.parametrize(("tokens", "features"), [(6, 6), (4, 6)])
@pytest.mark.parametrize("watched", [True, False])
def test_a_bias_moves_only_along_its_own_dimension(tokens: int, features: int, watched: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(32, tokens, features) + torch.arange(features)
    model = settled(Tokens(tokens, features), x)
    merged = copy.deepcopy(model)
    merge_statistics(merged, biased(merged, partial(run, inputs=x) if watched else None))
    assert torch.allclose(merged(x), model(x), atol=1e-4)
    assert merged.norm.running_mean.count_nonzero() == 0


def test_of_two_dimensions_it_is_the_same_one_and_the_mode_stays() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).train()
    model[3].eval()
    assert biased(model, lambda net: net(torch.randn(4, 5))) == {"1": "0"}
    assert across(model, lambda net: net(torch.randn(4, 5))) == {}
    assert biased(model) == {}  # nobody has seen how many dimensions there are
    assert model[1].training
    assert not model[3].training
    assert model[1].num_batches_tracked == 0
    assert not model[1]._forward_pre_hooks


def test_a_convolution_has_its_channels_where_a_normalisation_has_them() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4))
    assert biased(model) == {"1": "0"}


class Untraced(Tokens):
    """``torch.fx`` cannot follow it; one run tells the dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) < 1e9 else -x)


def test_an_untraced_network_has_its_normalisation_left_where_it_is() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 6, 6) + torch.arange(6)
    model = settled(Untraced(), x)
    recipe = {"assign": {"method": "int8"}, "train": None, "activations": {"calibrate": 1}}
    small = fb.compress(model, [(x, torch.randint(3, (64,)))], recipe=recipe, progress=None).into(Untraced())
    assert (small(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()


class Keeping(nn.Module):
    """Keeps what it computed, as LeViT does with its biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.found: dict[str, Tensor] = {}
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and "bias" not in self.found:
            self.found["bias"] = self.first.bias * 2
        self.latest = self.norm(self.first(x))
        self.seen.append(self.latest)
        return self.last(self.latest) + self.first.bias.sum()


def test_a_look_leaves_nothing_in_a_network() -> None:
    model = Keeping().eval()
    x = torch.randn(4, 6)
    for look in (lambda: graph_of(model), lambda: across(model, lambda net: net(x)), lambda: biased(model)):
        look()
        assert model.found == {}
        assert model.seen == []
        copy.deepcopy(model)
    small = fb.compress(
        model,
        [(x, torch.randint(3, (4,)))],
        recipe={"assign": {"method": "int8"}, "train": None, "activations": {"calibrate": 1}},
        progress=None,
    )
    assert small.report.identical


@pytest.mark.parametrize("method", ["ecq", "int8"])
def test_a_job_computes_what_it_did_or_names_both(method: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 6, 6) + torch.arange(6)
    model = settled(Tokens(), x)
    batches = [(x, torch.randint(3, (64,)))]
    recipe = {"assign": {"method": method}, "train": None}
    if method == "int8":
        with pytest.raises(UnsupportedError, match=r"norm normalises over the second of three dimensions, and mix"):
            fb.compress(model, batches, recipe=recipe | {"activations": {"calibrate": 1}}, progress=None)
        return
    recipe["assign"] |= {"bits": 8, "lam": 0.0}
    small = fb.compress(model, batches, recipe=recipe, progress=None).into(Tokens())
    assert (small(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()


class InPlace(nn.Module):
    """Changes its input, as some networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(96, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.sub_(0.5).mul_(2))


@pytest.mark.parametrize("section", [{"assign": {"method": "ecq", "lam": 0.1}}, {
    "assign": {"method": "none"}, "channels": {"parameters": 0.8, "train": None, "measured": False, "samples": 8},
}], ids=["ecq", "channels"])  # fmt: skip
def test_a_network_that_changes_its_inputs_is_compared_on_what_they_were(section: dict[str, object]) -> None:
    torch.manual_seed(0)
    batches = [(torch.rand(8, 2, 8, 8), torch.randint(3, (8,)))]
    small = fb.compress(InPlace(), batches, recipe=section | {"train": None}, progress=None)
    assert small.report.identical
