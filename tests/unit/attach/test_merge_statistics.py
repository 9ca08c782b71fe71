"""Normalisation with half of the numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.attach import merge_statistics
from fewbits.codec import inspect
from fewbits.graph.norm_pairs import biased
from fewbits.recipe import make
from networks import Residual, randomised


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_outputs_with_mean_zero_and_variance_one(dtype):
    model = randomised(Residual()).to(dtype).eval()
    x = torch.randn(4, 2, 6, 6, dtype=dtype)
    before = model(x)
    assert merge_statistics(model) == 2
    rtol = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(model(x), before, rtol=rtol, atol=rtol)
    for norm in (model.bn1, model.bn2):
        assert not norm.running_mean.any()
        assert (norm.running_var == 1).all()


def test_merging_twice_is_merging_once():
    model = randomised(Residual()).float().eval()
    merge_statistics(model)
    once = copy.deepcopy(model.state_dict())
    assert merge_statistics(model) == 2
    torch.testing.assert_close(model.state_dict(), once, rtol=0, atol=0)


def test_layers_without_statistics_or_scale_are_left_alone():
    model = nn.Sequential(
        nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, track_running_stats=False), nn.GroupNorm(1, 3)
    )
    model[0].running_mean.fill_(2.0)
    assert merge_statistics(model) == 0
    assert (model[0].running_mean == 2).all()
    assert merge_statistics(nn.BatchNorm1d(3)) == 1


class Biased(nn.Module):
    """Layers with biases: one whose normalisation alone reads it, and all the ways in which that is not so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.seen, self.seen_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.read, self.read_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.tied, self.tied_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.twice_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.relu_between, self.late_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)
        self.head_norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 3)
        self.last.bias = self.tied.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).relu()
        y = self.seen(x)
        x = self.seen_norm(y) + y
        x = self.read_norm(self.read(x)) + self.read.bias.sum()
        x = self.tied_norm(self.tied(x))
        x = self.twice_norm(self.twice(self.twice(x)))
        x = self.late_norm(self.relu_between(x).relu())
        return self.last(self.head_norm(self.head(x.mean(dim=(2, 3)))))


def test_biases_move_into_the_shift_where_nothing_else_reads_them():
    model = randomised(Biased()).double().eval()
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    before, original = model(x), copy.deepcopy(model.state_dict())
    found = biased(model, lambda net: net(x))
    assert found == {"norm": "conv", "head_norm": "head"}
    assert merge_statistics(model, found) == 7
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)
    for name in ("conv", "head"):
        assert original[f"{name}.bias"].all()
        assert not model.get_submodule(name).bias.any()
    for name in ("seen", "read", "tied", "twice", "relu_between"):
        assert torch.equal(model.get_submodule(name).bias, original[f"{name}.bias"])
    once = copy.deepcopy(model.state_dict())
    merge_statistics(model, found)
    torch.testing.assert_close(model.state_dict(), once, rtol=1e-15, atol=1e-15)


def test_a_structure_that_cannot_be_read_keeps_its_biases():
    class Unreadable(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 0 else x

    def seen(model: nn.Module) -> object:
        return model(torch.ones(2, 3))

    assert biased(Unreadable(nn.Linear(3, 3), nn.BatchNorm1d(3)), seen) == {}
    assert biased(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), seen) == {"1": "0"}
    assert biased(nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)), seen) == {}
    assert biased(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)), seen) == {}


def test_a_file_holds_no_bias_that_a_normalisation_can_hold(tmp_path):
    """Five numbers per channel become two, and the file says the same."""
    torch.manual_seed(0)
    model = randomised(nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))).float()
    batches = [(torch.randn(32, 8), torch.randint(4, (32,))) for _ in range(4)]
    recipe = make({"assign": {"method": "ecq", "lam": 0.0}, "train": {"epochs": 0.25, "lr": 1e-9}, "rounds": 1})
    small = fb.compress(model, batches, recipe=recipe)
    assert small.report.identical
    tensors = small.plan.tensors()
    for name in ("0.bias", "1.running_mean"):
        assert not tensors[name].any()
    sizes = {section.name: section.coded_bytes for section in inspect(small.data).tensors}
    assert sizes["0.bias"] == sizes["1.running_mean"] == sizes["1.running_var"] == 0
    assert sizes["1.bias"] > 64


@pytest.mark.parametrize(("scale", "variance", "eps"), [(1e30, 1e-40, 0.0), (1e-30, 1e38, 1e-5), (1.0, 0.0, 0.0)])
def test_what_float32_does_not_hold_is_not_merged(scale: float, variance: float, eps: float) -> None:
    """Beside a layer that is merged: scale over deviation is too large, too small, or infinite."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, eps=eps), nn.BatchNorm1d(2)).eval()
    with torch.no_grad():
        model[1].weight[0], model[1].running_var[0] = scale, variance
    before = copy.deepcopy(model.state_dict())
    assert merge_statistics(model, {"1": "0"}) == 1
    for name in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert torch.equal(model.state_dict()[name], before[name])
