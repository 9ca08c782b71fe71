"""Layers that compute with tensors of their own: without channels they are what they are with zeros there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewbits as fb
from channel_networks import disagreement
from fewbits.channels import Dependencies, criterion, dependencies, prune_channels, unit_scores
from fewbits.errors import UnsupportedError
from fewbits.task import Task
from fewbits.weights import is_turned
from networks import Conv1D

SAME = 1e-12


class Recurrent(nn.Module):
    """An embedding of numbers by a recurrent layer, two deep and in both directions."""

    def __init__(self, cell: Callable[..., nn.Module], begun: bool = False, **options: object) -> None:
        super().__init__()
        self.cell = cell(5, 6, num_layers=2, batch_first=True, bidirectional=True, **options)
        self.head, self.begun = nn.Linear(12, 3), begun

    def forward(self, x: Tensor) -> Tensor:
        begin = (x.new_ones(4, len(x), 6),) if self.begun else ()
        return self.head(self.cell(x, *begin)[0].mean(1))


class GlobalResponseNorm(nn.Module):
    """As timm has it, channels last."""

    def __init__(self, width: int, eps: float = 0.1) -> None:
        super().__init__()
        self.eps, self.shape = eps, (1, 1, 1, -1)
        self.weight, self.bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(p=2, dim=(1, 2), keepdim=True)
        own = norm / (norm.mean(dim=-1, keepdim=True) + self.eps)
        return x + torch.addcmul(self.bias.view(self.shape), self.weight.view(self.shape), x * own)


class Response(nn.Module):
    """Units of an MLP behind a response normalisation; takes ``[n, y, x, 4]``."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(4, 8), GlobalResponseNorm(8), nn.Linear(8, 3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(self.act(self.up(x)))).mean((1, 2))


class Standardised(nn.Conv2d):
    """Weights standardised output by output, with a gain."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, weight=(self.gain * 0.3).view(-1), training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


class Attention(nn.Module):
    """Attention and an MLP of such layers; takes ``[n, places, 12]``."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.split_size = 4, 3, 12
        self.c_attn, self.c_proj = Conv1D(36, 12), Conv1D(12, 12)
        self.up, self.down, self.norm = Conv1D(8, 12), nn.Linear(8, 2), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(x).split(self.split_size, dim=2)
        q, k, v = (part.view(*part.shape[:-1], -1, self.head_dim).transpose(1, 2) for part in parts)
        y = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        x = self.norm(x + self.c_proj(y.transpose(1, 2).flatten(2)))
        return self.down(F.gelu(self.up(x))).mean(1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "lstm": (lambda: Recurrent(nn.LSTM), (7, 5), [6]),
    "gru": (lambda: Recurrent(nn.GRU, bias=False), (7, 5), [6]),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), (7, 5), [6]),
    "responses": (Response, (3, 5, 4), [8]),
    "standardised": (
        lambda: nn.Sequential(Standardised(3, 6, 3), nn.ReLU(), Standardised(6, 5, 2), nn.Flatten(), nn.Linear(20, 2)),
        (3, 5, 5),
        [5],  # of the second: the first one's outputs are among the numbers that the second standardises
    ),
    "conv1d": (Attention, (7, 12), [4, 8]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_without_channels_it_is_the_network_with_zeros(name: str) -> None:
    torch.manual_seed(0)
    make, shape, sizes = NETWORKS[name]
    model = make().double().eval()
    found = dependencies(model, shape)
    assert sorted(len(group) for group in found.groups) == sizes
    x = torch.randn(2, *shape, dtype=torch.float64)
    for count in range(1, min(sizes)):
        off, small = disagreement(model, found.without([u for group in found.groups for u in group[:count]]), x)
        assert off < SAME
        assert float((small(x) - model(x)).detach().abs().max()) > 1e-3
        if count > 1:
            continue
        again = dependencies(small, shape)  # and once more
        off, _ = disagreement(small, again.without([group[0] for group in again.groups]), x)
        assert off < SAME


@pytest.mark.parametrize("name", ["magnitude", "taylor", "random"])
@pytest.mark.parametrize("network", ["lstm", "conv1d"])
def test_every_layer_has_scores(network: str, name: str) -> None:
    torch.manual_seed(0)
    make, shape, _ = NETWORKS[network]
    model = make().eval()
    found: Dependencies = dependencies(model, shape)
    task = Task(loss=lambda outputs, targets: outputs.square().mean())
    scores = unit_scores(found, criterion(name, model, [(torch.randn(4, *shape), torch.zeros(4))], task=task))
    assert len(scores.unique()) == found.count


def test_states_that_are_given_keep_hidden_units() -> None:
    with pytest.raises(UnsupportedError, match="no channel of Recurrent can be removed"):
        dependencies(Recurrent(nn.GRU, begun=True), (7, 5))


@pytest.mark.parametrize("options", [{"proj_size": 3}])
def test_a_projection_keeps_hidden_units(options: dict[str, int]) -> None:
    model = Recurrent(nn.LSTM, **options)
    model.head = nn.Linear(6, 3)
    with pytest.raises(UnsupportedError, match="no channel of Recurrent can be removed"):
        dependencies(model, (7, 5))


def test_channels_that_are_not_zero_stay_in_a_response() -> None:
    """Behind a sigmoid a channel of zeros is 0.5, which the mean over channels has a share of: the trial ends it."""
    torch.manual_seed(0)
    with pytest.raises(UnsupportedError, match="runs over channels"):
        dependencies(Response(torch.sigmoid), (3, 5, 4))


def test_layer_normalisation_over_places_lets_channels_go() -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Conv1d(2, 6, 1), nn.LayerNorm(7), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.layer_norm(self.norm(self.first(x)), (7,)).mean(2))

    torch.manual_seed(0)
    model = Places().double().eval()
    nn.init.normal_(model.norm.weight)
    found = dependencies(model, (2, 7))
    assert [len(group) for group in found.groups] == [6]
    off, _ = disagreement(model, found.without([0, 3]), torch.randn(2, 2, 7, dtype=torch.float64))
    assert off < SAME


def test_a_vector_that_divides_stays() -> None:
    class Divided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.by = nn.Linear(3, 6), nn.Linear(6, 2), nn.Parameter(torch.rand(6) + 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) / self.by.view(1, -1))

    with pytest.raises(UnsupportedError, match="no channel of Divided can be removed"):
        dependencies(Divided(), (3,))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_of_two_rounds_is_the_network_again(name: str) -> None:
    torch.manual_seed(0)
    make, shape, _ = NETWORKS[name]
    part = {"channels": 0.7, "criterion": "magnitude", "measured": False, "train": None, "rounds": 2}
    recipe = {"train": None, "rounds": 1, "coding": "fast", "assign": {"method": "none"}, "channels": part}
    task = Task(loss=lambda outputs, targets: outputs.square().mean())
    x = torch.randn(4, *shape)
    small = fb.compress(make(), [(x, torch.zeros(4))], task=task, recipe=recipe, progress=None)
    assert small.report.identical
    net = make()
    whole = sum(p.numel() for p in net.parameters())
    again = fb.load(small.data, like=net)
    assert bool(torch.isfinite(again.eval()(x)).all())
    assert sum(p.numel() for p in again.parameters()) < whole


def test_eps_of_two_removals_is_that_of_one() -> None:
    torch.manual_seed(0)
    once, twice = Response(), Response()
    twice.load_state_dict(once.state_dict())
    found = dependencies(once, (3, 5, 4))
    prune_channels(once, found.without([0, 1, 2, 3, 4]))
    for left in (8, 5):
        prune_channels(twice, dependencies(twice, (3, 5, 4)).without(list(range(3 if left == 8 else 2))))
    assert once.norm.eps == twice.norm.eps == 0.1 * 8 / 3
    assert torch.allclose(once.norm.weight, twice.norm.weight)


def test_a_wrapper_that_is_called_like_transformers_layer_is_none() -> None:
    class Conv1D(nn.Module):
        def __init__(self, *sizes: int) -> None:
            super().__init__()
            self.conv = nn.Conv1d(*sizes)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.head_dim = 2, 4
            self.first, self.second = Conv1D(3, 8, 1), Conv1D(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    model = Block().double().eval()
    found = dependencies(model, (3, 5))
    assert found.outputs == ("first.conv.weight", "second.conv.weight")
    assert found.count == 8
    named = type("Conv1D", (nn.Conv1d,), {})(3, 8, 1)
    assert not is_turned(named)
