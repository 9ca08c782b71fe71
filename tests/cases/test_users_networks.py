"""Networks in the state in which people have them: they work, or one sentence names the tensor."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from later import Net, batches, recipe, said
from torch import nn

import fewbits as fb
from fewbits.errors import FewbitsError


def pruned() -> nn.Module:
    """With torch's own masks, after a step of the user's training."""
    net = Net()
    torch.nn.utils.prune.l1_unstructured(net.a, "weight", 0.5)
    x, y = batches()[0]
    F.cross_entropy(net(x), y).backward()
    return net


def old_weight_norm() -> nn.Module:
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(net.head)
    return net


def spectral_norm() -> nn.Module:
    net = Net()
    nn.utils.spectral_norm(net.head)
    return net


def lazy() -> nn.Module:
    net = Net()
    net.head = nn.LazyLinear(4)  # type: ignore[assignment]
    return net


@pytest.mark.parametrize(
    ("make", "tensor"),
    [
        pytest.param(pruned, "a.weight"),
        pytest.param(old_weight_norm, "head.weight"),
        pytest.param(spectral_norm, "head.weight"),
        pytest.param(lazy, "head.weight"),
    ],
)
def test_what_stands_in_for_a_weight_is_folded_or_named(make: Callable[[], nn.Module], tensor: str) -> None:
    message = said(make(), batches())
    assert message is None or tensor in message


def test_weight_norm_is_no_plan() -> None:
    net = Net()
    nn.utils.parametrizations.weight_norm(net.head)
    message = said(net, batches())
    assert message is None or ("head.weight" in message and "plan" not in message)


def test_a_frozen_network_is_compressed() -> None:
    fb.compress(Net().requires_grad_(False), batches(), recipe=recipe())


def test_a_causal_mask_stays_as_it_is() -> None:
    net = Net()
    net.register_buffer("mask", torch.triu(torch.full((4, 4), -torch.inf), 1))
    small = fb.compress(net, batches(), recipe=recipe())
    assert torch.equal(small.plan["mask"].values(), net.mask)


def test_a_file_from_within_data_parallel_fits_the_network_itself(tmp_path: Path) -> None:
    fb.compress(nn.DataParallel(Net()), batches(), recipe=recipe()).save(tmp_path / "net.few")
    fb.load(tmp_path / "net.few", like=Net())


def test_a_network_on_the_meta_device_is_filled_or_refused(tmp_path: Path) -> None:
    fb.compress(Net(), batches(), recipe=recipe()).save(tmp_path / "net.few")
    with torch.device("meta"):
        like = Net()
    try:
        net = fb.load(tmp_path / "net.few", like=like)
    except FewbitsError as error:
        assert "meta" in str(error)  # noqa: PT017 - either way is right
    else:
        assert not any(tensor.is_meta for tensor in net.state_dict().values())


@pytest.mark.parametrize(
    ("buffer", "value", "method"),
    [
        pytest.param("running_var", float("nan"), "ecq"),
        pytest.param("running_var", float("nan"), "int8"),
        pytest.param("running_mean", float("inf"), "ecq"),
        pytest.param("running_mean", float("inf"), "int8"),
    ],
)
def test_statistics_that_are_not_finite_are_named_as_the_network_names_them(
    buffer: str, value: float, method: str
) -> None:
    net = nn.Sequential()
    net.conv, net.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    net.pool, net.flat, net.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    getattr(net.bn, buffer)[1] = value
    assign = {"method": method} | ({"lam": 0.1} if method == "ecq" else {})
    assert f"bn.{buffer}" in str(said(net, batches(), recipe=recipe(assign=assign, train=None)))


def test_what_cannot_be_copied_is_told_with_a_way_out() -> None:
    net = Net()
    net.lock = threading.Lock()  # type: ignore[assignment]
    assert "Net cannot be copied" in str(said(net, batches()))
