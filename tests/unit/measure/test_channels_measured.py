"""Measured channel scores against removing the channels one count after the other, without surgery."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from channel_networks import Drawn
from fewbits.channels import Dependencies, dependencies, measured
from fewbits.channels.surgery import zero_channels
from fewbits.errors import DataError, MismatchError, NonFiniteError
from networks import randomised

SHAPE = (2, 6, 6)
INPUTS = torch.randn(24, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
BATCHES = [(INPUTS[:12], None), (INPUTS[12:], None)]


def network(blocks: list[str]) -> nn.Module:
    torch.manual_seed(0)
    return randomised(Drawn(blocks, 6, flat=False)).eval()


@torch.no_grad()
def loss(model: nn.Module, found: Dependencies, removed: list[int]) -> float:
    """KL divergence from the whole network's answers, by its definition; the channels are zero, not gone."""
    other = copy.deepcopy(model)
    zero_channels(other, found.without(removed))
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    total = 0.0
    for x, _ in BATCHES:
        p, q = F.softmax(model(x), 1).double(), F.softmax(other(x), 1).double()
        total += float((p * (p / q).log()).sum())
    return total / len(INPUTS)


def envelope(losses: list[float]) -> Tensor:
    """The lower convex envelope at 0, 1, ...: the lowest chord over each place."""
    lowest = list(losses)
    for i, j in combinations(range(len(losses)), 2):
        for k in range(i, j + 1):
            lowest[k] = min(lowest[k], losses[i] + (losses[j] - losses[i]) * (k - i) / (j - i))
    return torch.tensor(lowest, dtype=torch.float64)


@settings(max_examples=8)
@given(
    st.lists(st.sampled_from(["plain", "residual", "concat", "depthwise"]), min_size=1, max_size=2),
    st.integers(0, 99),
)
def test_scores_add_up_to_the_measured_losses(blocks: list[str], seed: int) -> None:
    model = network(blocks)
    found = dependencies(model, SHAPE)
    scores = torch.rand(found.count, generator=torch.Generator().manual_seed(seed))
    told = measured(model, BATCHES, found, scores, levels=100)  # every count
    for group in found.groups:
        order = sorted(group, key=lambda unit: float(scores[unit]))
        assert sorted(group, key=lambda unit: float(told[unit])) == order
        wanted = envelope([loss(model, found, order[:k]) for k in range(len(order))])
        steps = wanted.diff().clamp_min(0)
        steps = torch.cat([steps, steps[-1:]]) if len(steps) else torch.zeros(1).double()  # the last one never goes
        torch.testing.assert_close(told[order], steps, rtol=1e-3, atol=1e-5)


def test_levels_between_which_scores_are_equal() -> None:
    model = network(["plain"])
    found = dependencies(model, SHAPE)
    scores = torch.arange(found.count).double()
    told = measured(model, BATCHES, found, scores, levels=2)
    group = max(found.groups, key=len)
    half = round(len(group) / 2)
    slope = max(0.0, loss(model, found, list(group[:half])) - loss(model, found, [])) / half
    torch.testing.assert_close(told[list(group)], torch.full((len(group),), slope).double(), rtol=1e-3, atol=1e-6)


def test_channels_that_do_nothing_score_nothing_though_the_criterion_likes_them() -> None:
    model = network(["residual"])
    found = dependencies(model, SHAPE)
    inner = next(g for g in found.groups if ("parts.0.1.weight", 1, 0) in found.members(g[0]))
    with torch.no_grad():
        model.get_parameter("parts.0.1.weight")[:, :3] = 0  # nobody listens to the first three
    scores = torch.ones(found.count).double()
    scores[list(inner)] = 100.0 + torch.arange(len(inner)).double()
    told = measured(model, BATCHES, found, scores, levels=100)
    assert float(told[list(inner[:3])].max()) < 1e-6 < float(told[inner[3]])


class Growing(nn.Module):
    """A residual stream that one more channel joins, so that nothing else goes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.pad = nn.ZeroPad3d((0, 0, 0, 0, 0, 1))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.pad(x) + self.second(x))
        return self.head(x.mean((2, 3)))


def test_a_channel_that_goes_alone_but_not_as_the_last_of_its_layer() -> None:
    torch.manual_seed(0)
    model = randomised(Growing()).eval()
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(30)
    found = dependencies(model, SHAPE)
    (unit,) = next(group for group in found.groups if len(group) == 1)
    told = measured(model, BATCHES, found, torch.ones(found.count))
    wanted = loss(model, found, [unit])
    assert wanted > 1e-5
    assert float(told[unit]) == pytest.approx(wanted, rel=0.05)


def test_the_network_is_left_as_it_is() -> None:
    model = network(["plain"]).train()
    before = copy.deepcopy(model.state_dict())
    found = dependencies(model, SHAPE)
    first = measured(model, BATCHES, found, torch.rand(found.count))
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert first.dtype == torch.float64
    assert bool(torch.isfinite(first).all())


class Masking(nn.Module):
    """A classifier that never answers the last class."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.first(x)))) + torch.tensor([0.0, 0.0, -torch.inf])


def test_classes_that_are_never_answered_and_a_last_batch_of_one_sample() -> None:
    torch.manual_seed(0)
    model = Masking().eval()
    found = dependencies(model, (4,))
    inputs = torch.randn(9, 4)
    scores = torch.arange(found.count)
    told = measured(model, [(inputs[:8], None), (inputs[8:], None)], found, scores, levels=100)
    assert float(told.max()) > 1e-4
    assert torch.equal(told, measured(model, [(inputs, None)], found, scores, levels=100))


def test_complaints() -> None:
    model = network(["plain"])
    found = dependencies(model, SHAPE)
    with pytest.raises(MismatchError, match="there are 3 scores"):
        measured(model, BATCHES, found, torch.rand(3))
    with pytest.raises(DataError, match="at least one batch"):
        measured(model, [], found, torch.rand(found.count))
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        measured(model, [(INPUTS * torch.inf, None)], found, torch.rand(found.count))
    flat = Masking().eval()
    with pytest.raises(DataError, match="statistics"):
        measured(flat, [(torch.randn(1, 4), None)], dependencies(flat, (4,)), torch.rand(6))
