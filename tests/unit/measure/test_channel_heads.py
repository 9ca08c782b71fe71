"""Heads of attention as channels: attributes that count them, multiplications between values, biases per head."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewbits as fb
from attention_networks import Block, Counted, Gated, Heads
from channel_networks import Attention, disagreement, removal
from fewbits.channels import choose, dependencies, prune_channels, unit_scores
from fewbits.channels.heads import heads_of
from fewbits.errors import BudgetError
from fewbits.hardware import count
from fewbits.pipeline.stages.channels import sizes_of


class Traced(nn.Module):
    """A block of a transformer; takes ``[n, places, 5]``."""

    def __init__(self, attention: nn.Module, width: int = 12) -> None:
        super().__init__()
        self.embed, self.norm, self.attention = nn.Linear(5, width), nn.LayerNorm(width), attention
        self.mlp, self.head = Gated(width, 16), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        return self.head((x + self.mlp(self.norm(x))).mean(1))


@pytest.mark.parametrize("looks", [False, True], ids=["traced", "watched"])
def test_an_attribute_that_counts_heads_is_right_afterwards(looks: bool) -> None:
    torch.manual_seed(0)
    model = (Block(Counted(), Gated(12), 12) if looks else Traced(Counted())).double().eval()
    name = "heads" if looks else "attention"
    found = dependencies(model, (6, 5))
    assert sorted(len(group) for group in found.groups) == [4, 12 if looks else 16]
    unit = next(u for u in range(found.count) if any(n == f"{name}.qkv.weight" for n, _, _ in found.members(u)))
    assert sorted(i for n, d, i in found.members(unit) if (n, d) == (f"{name}.qkv.weight", 0)) == [
        0, 1, 2, 12, 13, 14, 24, 25, 26
    ]  # fmt: skip
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    for seed in range(4):
        channels = removal(model, (6, 5), seed)
        off, small = disagreement(model, channels, x)
        assert off < 1e-12
        attention = small.get_submodule(name)
        left = attention.qkv.out_features // 9
        assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (left, 3, 3 * left)
        assert (attention.qkv.out_features, attention.proj.in_features) == (9 * left, 3 * left)
        again = removal(small, (6, 5), seed, 0.3)  # and once more
        off, _ = disagreement(small, again, x)
        assert off < 1e-12
    assert model.get_submodule(name).num_heads == 4


@pytest.mark.parametrize("wrong", [{"scaled": True}, {"honest": False}], ids=["of the input", "under another name"])
def test_heads_whose_number_is_also_somewhere_else_stay(wrong: dict[str, bool]) -> None:
    """Of the second kind only the trial knows: the sizes are equal, the attributes are not."""
    model = Traced(Counted(**wrong)).double().eval()
    found = dependencies(model, (6, 5))
    assert [len(group) for group in found.groups] == [16]
    assert "fixed sizes" in found.fixed["attention.qkv.weight"]
    off, _ = disagreement(model, removal(model, (6, 5), 0), torch.randn(2, 6, 5, dtype=torch.float64))
    assert off < 1e-12


def test_which_modules_have_heads() -> None:
    found = heads_of(Counted())
    assert found is not None
    assert (found.size, dict(found.counts), dict(found.widths)) == (3, {"num_heads": 4}, {"attn_dim": 12})
    assert heads_of(nn.MultiheadAttention(8, 2)) is None
    assert heads_of(Heads()) is None
    other = Counted()
    other.num_heads = 5  # its layers have four
    assert heads_of(other) is None


def test_shared_keys_have_a_number_of_their_own() -> None:
    class Grouped(Heads):
        def __init__(self) -> None:
            super().__init__(12, 4, 3, 2)
            self.num_heads, self.num_key_value_heads, self.head_dim = 4, 2, 3

        def forward(self, x: Tensor) -> Tensor:
            n, t = x.shape[:2]
            q = self.q(x).view(n, t, self.num_heads, self.head_dim).transpose(1, 2)
            k, v = (f(x).view(n, t, self.num_key_value_heads, self.head_dim).transpose(1, 2) for f in (self.k, self.v))
            y = F.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v))
            return self.out(y.transpose(1, 2).reshape(n, t, -1))

    model = Traced(Grouped()).double().eval()
    found = dependencies(model, (6, 5))
    assert sorted(len(group) for group in found.groups) == [2, 16]
    unit = next(u for u in range(found.count) if any(n == "attention.q.weight" for n, _, _ in found.members(u)))
    small = copy.deepcopy(model)
    prune_channels(small, found.without([unit]))
    assert (small.attention.num_heads, small.attention.num_key_value_heads) == (2, 1)
    off, _ = disagreement(model, found.without([unit]), torch.randn(2, 6, 5, dtype=torch.float64))
    assert off < 1e-12


def test_a_look_up_table_with_a_number_for_each_head_loses_them_too() -> None:
    class Biased(Heads):
        def __init__(self) -> None:
            super().__init__(12, 4, 3)
            self.table = nn.Embedding(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(x.shape[1], device=x.device)
            bias = self.table((places[:, None] - places).abs()).permute(2, 0, 1)[None]
            q, k, v = (f(x).view(*x.shape[:-1], -1, self.size).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(q, k, v, bias, scale=0.5)
            return self.out(y.transpose(1, 2).flatten(2))

    model = Block(Biased(), Gated(12), 12).double().eval()
    found = dependencies(model, (6, 5))
    assert sorted(len(group) for group in found.groups) == [4, 12]
    off, small = disagreement(model, removal(model, (6, 5), 1), torch.randn(2, 6, 5, dtype=torch.float64))
    assert off < 1e-12
    assert small.heads.table.embedding_dim == small.heads.table.weight.shape[1] < 4


class Functional(nn.BatchNorm2d):
    """Normalisation and activation in one, as timm has them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(
            F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        )


def test_normalisation_by_a_function_has_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), Functional(6), nn.Conv2d(6, 3, 3), nn.Flatten()).double().eval()
    nn.init.normal_(model[1].running_mean)
    found = dependencies(model, (2, 8, 8))
    assert found.count == 6
    off, small = disagreement(model, removal(model, (2, 8, 8), 0), torch.randn(2, 2, 8, 8, dtype=torch.float64))
    assert off < 1e-12
    assert small[1].num_features == small[0].out_channels < 6


@pytest.mark.parametrize(
    "model",
    [Traced(Counted()), Attention(-1, 4), Attention(3, -1), Block(Heads(share=2, native=True), Gated()),
     Block(Heads(share=2, fused=False), Gated())],
    ids=["an attribute", "open heads", "open places", "grouped", "grouped, written out"],
)  # fmt: skip
def test_products_of_attention_count_as_they_are_counted(model: nn.Module) -> None:
    model = model.eval()
    shape = (6, 5)
    found, sizes = dependencies(model, shape), sizes_of(model, shape)
    whole = count(model, shape).macs
    assert sizes.macs == whole
    assert sizes.others > 0
    scores = unit_scores(found, {n: torch.rand(len(p)) for n, p in model.named_parameters() if p.dim() > 1})
    for left in (0.9, 0.7, 0.55):
        try:
            choice = choose(found, scores, sizes, left=left, per_saving=left < 0.8)
        except BudgetError:
            continue
        small = copy.deepcopy(model)
        prune_channels(small, choice.channels)
        assert count(small, shape).macs == round(choice.macs * whole) <= left * whole
    assert choice.removed


@pytest.mark.parametrize("method", ["none", "int8"])
@pytest.mark.parametrize("looks", [False, True], ids=["traced", "watched"])
def test_a_file_has_fewer_heads_and_a_fresh_network_gets_them(looks: bool, method: str, tmp_path: Path) -> None:
    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return (Block(Counted(), Gated(12), 12) if looks else Traced(Counted())).eval()

    recipe = {
        "train": None,
        "rounds": 1,
        "assign": {"method": method},
        "channels": {"macs": 0.6, "criterion": "magnitude", "measured": False, "rounds": 2, "train": None, "cap": 0.8},
    }
    data = [(torch.randn(8, 6, 5), torch.zeros(8, dtype=torch.long)) for _ in range(2)]
    small = fb.compress(made(0), data, recipe=recipe, progress=None)
    assert small.report.identical
    small.save(tmp_path / "net.few")
    net = fb.load(tmp_path / "net.few", like=made(1))
    name = "heads" if looks else "attention"
    with torch.no_grad():
        assert torch.equal(net(data[0][0]), small.into(made(2))(data[0][0]))
    rows = net.state_dict()[f"{name}.qkv.weight"].shape[0]
    assert rows < 36
    if looks or method == "none":
        assert net.get_submodule(name).num_heads == rows // 9
