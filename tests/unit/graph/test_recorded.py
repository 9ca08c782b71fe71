"""What a recorded run says of a network that no tracer goes through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attention_networks import Block, Gated, Heads, Writing
from channel_networks import disagreement, removal
from fewbits.channels import dependencies
from fewbits.errors import UnsupportedError
from fewbits.graph import PLACE, VALUE, graph_of, recorded, unseen

MLP = ("mlp.0.weight", "mlp.2.weight")


def plain_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8))


@pytest.mark.parametrize(
    ("heads", "units"),
    [
        (Heads(), 4),
        (Heads(fused=False), 4),
        (Heads(share=2), 2),
        (Heads(share=2, native=True), 2),
        (Heads(share=2, fused=False), 2),
        (Heads(bias=True), 4),
    ],
    ids=["fused", "written out", "grouped", "grouped by torch", "grouped, written out", "with a bias per head"],
)
def test_heads_go_with_their_keys_and_values(heads: Heads, units: int) -> None:
    torch.manual_seed(0)
    model = Block(heads, Gated()).double().eval()
    with pytest.raises(UnsupportedError):
        graph_of(model)
    found = dependencies(model, (6, 5))
    group = next(g for g in found.groups if any(n == "heads.q.weight" for n, _, _ in found.members(g[0])))
    assert len(group) == (units if heads.bias is None else 4)
    rows = {name: sum(n == name and d == 0 for n, d, _ in found.members(group[0])) for name in
            ("heads.q.weight", "heads.k.weight", "heads.v.weight")}  # fmt: skip
    assert rows == {"heads.q.weight": 3 * heads.share, "heads.k.weight": 3, "heads.v.weight": 3}
    assert sum(n == "heads.out.weight" and d == 1 for n, d, _ in found.members(group[0])) == 3 * heads.share
    for seed in range(3):
        channels = removal(model, (6, 5), seed)
        off, small = disagreement(model, channels, torch.randn(2, 6, 5, dtype=torch.float64))
        assert off < 1e-12
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("mlp", "count"), [(Gated(), 12), (plain_mlp(), 10)], ids=["gated", "plain"])
def test_units_of_an_mlp_are_channels(mlp: nn.Module, count: int) -> None:
    found = dependencies(Block(nn.Linear(8, 8), mlp).eval(), (6, 5))
    assert [len(group) for group in found.groups] == [count]
    names = {name for name, _, _ in found.members(0)}
    assert names >= ({"mlp.gate.weight", "mlp.up.weight", "mlp.down.weight"} if count == 12 else set(MLP))
    assert "mlp.down.weight" not in {name for name, dim, _ in found.members(0) if dim == 0}


class Between(nn.Module):
    """Looks at its data, and then does something between two linear layers of eight units."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(5, 8), nn.Linear(8, 3), between

    def forward(self, x: Tensor) -> Tensor:
        assert x.tolist()
        return self.second(self.between(torch.relu(self.first(x))))


def out_of_sight(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return 2 * x.flip(-1)


def only_of_eight(x: Tensor) -> Tensor:
    if x.shape[-1] != 8:
        raise ValueError("eight, please")
    return x


def assigned(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:] = x
    return y


STAY = {
    "out of sight": (out_of_sight, "unseen"),
    "through NumPy": (lambda x: torch.from_numpy(x.numpy() * 2), "has no rule"),
    "a size in numbers": (lambda x: x.reshape(-1, 8), "fixed sizes"),
    "a size that decides": (only_of_eight, "computes with their number"),
    "a size of another axis": (lambda x: x.view(len(x), x.size(-1) // 2, -1).flatten(1), "computes with their number"),
    "a size that scales": (lambda x: x * x.shape[-1] ** -0.5, "computes with their number"),
    "a size that divides": (lambda x: x / x.size(-1), "computes with their number"),
    "a size as a float": (lambda x: x * float(x.shape[-1]), "computes with their number"),
    "assigned": (assigned, "has no rule"),
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_not_understood_stays(name: str) -> None:
    between, word = STAY[name]
    with pytest.raises(UnsupportedError, match=word):
        dependencies(Between(between), (5,))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.reshape(x.shape),
        lambda x: 1 - (x + 1) / (2 + x),
        lambda x: x.clone().mul_(3).max(0, keepdim=True).values + x,
        lambda x: x.view(len(x), 2, x.size(-1) // 2).reshape(x.shape[0], 2 * (x.shape[1] // 2)),
    ],
)
def test_sizes_that_are_asked_for_follow(between: Callable[[Tensor], Tensor]) -> None:
    model = Between(between).double()
    found = dependencies(model, (5,))
    assert found.count in (4, 8)
    off, _ = disagreement(model, removal(model, (5,), 0), torch.randn(4, 5, dtype=torch.float64))
    assert off < 1e-12


def test_the_network_is_left_as_it_was_and_the_graph_says_where() -> None:
    model = Block(Heads(), Gated()).train()
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    x = torch.randn(1, 6, 5)
    graph = recorded(model, [x], lambda: [model.forward(x)])
    dependencies(model, (6, 5))
    assert before == [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    attention = next(n for n in graph.nodes if getattr(n.target, "__name__", "") == "scaled_dot_product_attention")
    assert attention.meta[PLACE] == "heads"
    assert attention.meta[VALUE].shape == (1, 4, 6, 3)
    assert not any(node.target is unseen for node in graph.nodes)
    with pytest.raises(ValueError, match="NaN"):
        recorded(model, [x], lambda: [model.forward(x * torch.nan)])
    assert before == [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]


def test_layers_of_several_operations_are_looked_into() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(8, 2)).double().eval()
    found = dependencies(model, (5, 8))
    assert [len(group) for group in found.groups] == [12, 12]
    off, _ = disagreement(model, removal(model, (5, 8), 0), torch.randn(2, 5, 8, dtype=torch.float64))
    assert off < 1e-12


def test_convolutions_of_a_network_that_writes_in_place_are_narrowed() -> None:
    model = Writing().double().eval()
    assert dependencies(model, (2, 8, 8)).count == 11
    off, _ = disagreement(model, removal(model, (2, 8, 8), 1), torch.randn(2, 2, 8, 8, dtype=torch.float64))
    assert off < 1e-12


def test_a_sample_that_the_network_does_not_take_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"does not take a single sample of shape \(7,\)"):
        dependencies(Between(torch.relu), (7,))
