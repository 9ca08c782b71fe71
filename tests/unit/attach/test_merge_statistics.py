"""Normalisation with half of the numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fewbits.attach import merge_statistics
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
