"""Weights of every kind of layer: held where the forward reads them, written once, and bit-equal when loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits.attach import attach, evaluating, fold, held
from fewbits.errors import SelectionError, UnsupportedError
from fewbits.measure.curvature import curvature
from fewbits.measure.relevance import relevance
from fewbits.plan import Clustered, Masked
from fewbits.weights import layer_weights, places, select, uncompressed

WORDS, N, T = 11, 12, 5


class Conv1D(nn.Module):
    """As transformers has it: a linear layer whose weight is the other way round."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) * 0.1), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Text(nn.Module):
    """Tokens through an embedding, what is tried, and a mean."""

    def __init__(self, layer: nn.Module, width: int, table: nn.Module | None = None) -> None:
        super().__init__()
        self.several, self.flat = isinstance(layer, nn.RNNBase), isinstance(layer, Cell) or table is not None
        self.table, self.layer = table or nn.Embedding(WORDS, 8, padding_idx=0), layer
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layer(self.table(ids))
        x = x[0] if self.several else x
        return self.head(x if self.flat else x.mean(1))


class Attention(nn.Module):
    """Attention with one matrix for all three projections, or with three."""

    def __init__(self, apart: bool) -> None:
        super().__init__()
        widths = {"kdim": 6, "vdim": 4} if apart else {}
        self.a = nn.MultiheadAttention(8, 2, batch_first=True, **widths)

    def forward(self, x: Tensor) -> Tensor:
        k, v = (x, x) if self.a.kdim == 8 else (x[..., :6], x[..., :4])
        return self.a(x, k, v, need_weights=False)[0]


class Cell(nn.Module):
    """A recurrent cell, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state


class Up(nn.Module):
    """A transposed convolution over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(8, 6, 2, stride=2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x.transpose(1, 2)).transpose(1, 2)


def recurrent(kind: type[nn.RNNBase], **options: Any) -> Callable[[], nn.Module]:
    width = options.get("proj_size", 6) * (2 if options.get("bidirectional") else 1)
    return lambda: Text(kind(8, 6, batch_first=True, **options), width)


def table(**options: Any) -> nn.Module:
    found = Text(nn.Identity(), 8)
    found.table = nn.Embedding(WORDS, 8, **options)
    return found


BOTH = ["layer.weight_ih_l0", "layer.weight_hh_l0"]
KINDS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "lstm": (recurrent(nn.LSTM), BOTH),
    "gru": (recurrent(nn.GRU), BOTH),
    "rnn": (recurrent(nn.RNN), BOTH),
    "projected": (recurrent(nn.LSTM, proj_size=4), [*BOTH, "layer.weight_hr_l0"]),
    "both ways": (recurrent(nn.GRU, bidirectional=True), [*BOTH, *(f"{name}_reverse" for name in BOTH)]),
    "cell": (lambda: Text(Cell(), 6), ["layer.cell.weight_ih", "layer.cell.weight_hh"]),
    "attention": (lambda: Text(Attention(False), 8), ["layer.a.in_proj_weight", "layer.a.out_proj.weight"]),
    "three projections": (
        lambda: Text(Attention(True), 8),
        [*(f"layer.a.{part}_proj_weight" for part in "qkv"), "layer.a.out_proj.weight"],
    ),
    "encoder": (
        lambda: Text(nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=True), 8),
        [f"layer.{name}weight" for name in ("self_attn.in_proj_", "self_attn.out_proj.", "linear1.", "linear2.")],
    ),
    "transposed": (lambda: Text(Up(), 6), ["layer.up.weight"]),
    "Conv1D": (lambda: Text(Conv1D(6, 8), 6), ["layer.weight"]),
    "bilinear": (lambda: Text(Square(), 6), ["layer.both.weight"]),
    "bag": (lambda: Text(nn.Identity(), 8, nn.EmbeddingBag(WORDS, 8)), []),
    "sparse": (lambda: table(sparse=True), []),
    "bounded": (lambda: table(max_norm=0.5), []),
}


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(8, 8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x, x)


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind][0]().eval()


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(1, WORDS, (N, T), generator=generator), torch.arange(N) % 3) for _ in range(3)]


def grid(weight: Tensor) -> Clustered:
    step = float(weight.detach().abs().max()) / 3
    return Clustered((weight.detach() / step).round().to(torch.int16), 3, step=step)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_every_layer_are_taken(kind: str) -> None:
    assert list(select(made(kind))) == ["table.weight", *KINDS[kind][1], "head.weight"]


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """The same tensors elsewhere in memory may be multiplied by another kernel."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [False, True], ids=["with gradients", "without"])
def test_the_forward_computes_with_what_is_held(kind: str, frozen: bool) -> None:
    model, expected = made(kind), made(kind)
    plan = {name: grid(weight) for name, weight in select(model).items()}
    with torch.no_grad():
        for name, entry in plan.items():
            expected.get_parameter(name).copy_(entry.values())
    attach(model, plan)
    assert all(torch.equal(own[0].tensor, plan[name].values()) for name, own in places(model).items() if name in plan)
    ids = data()[0][0]
    with torch.set_grad_enabled(not frozen):
        outputs, wanted = model(ids), expected(ids)
        assert_near(outputs, wanted)
        again = copy.deepcopy(model)
        assert_near(again(ids), wanted)
    with evaluating(model):
        assert_near(model(ids), expected(ids))
    model.float()
    assert_near(model(ids), expected(ids))
    if not frozen:
        outputs.sum().backward()
        wanted.sum().backward()
        for name in plan:
            path, _, attribute = name.rpartition(".")
            slope = model.get_submodule(path).parametrizations[attribute].original.grad
            like = expected.get_parameter(name).grad
            torch.testing.assert_close(slope, like.to_dense() if like.is_sparse else like)
    for holder in held(model).values():
        holder.levels.zero_()
    assert not torch.allclose(model(ids), wanted)
    fold(again)
    assert type(again.layer) is type(expected.layer)
    assert_near(again(ids), expected(ids))
    with torch.no_grad():
        for name in plan:
            again.get_parameter(name).zero_()
    assert not torch.allclose(again(ids), wanted), "a folded layer computes with its parameters"


METHODS: dict[str, dict[str, Any]] = {
    "ecq": {"assign": {"method": "ecq", "lam": 0.1}, "train": {"epochs": 1, "learn": True}},
    "ecqx": {"assign": {"method": "ecqx", "lam": 0.1}},
    "pruned": {"assign": {"method": "none"}, "prune": {"method": "feather", "sparsity": 0.5}},
    "int8": {"assign": {"method": "int8"}},
}
REFUSED = {("ecqx", "bilinear"): r"layer\.both"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_them_decode_bit_equal(kind: str, method: str, tmp_path: Any) -> None:
    model = made(kind)
    recipe = {"train": {"epochs": 1, "lr": 1e-2}, "rounds": 2} | METHODS[method]
    if (method, kind) in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[method, kind]):
            fb.compress(model, data(), recipe=recipe)
        return
    small = fb.compress(model, data(), recipe=recipe)
    assert small.report.identical
    assert list(small.plan.compressed) != []
    assert set(small.plan.compressed) == set(select(model))
    assert not [row for row in small.report.rest if len(row.shape) > 1]
    small.save(tmp_path / "net.few")
    net = fb.load(tmp_path / "net.few", like=made(kind))
    wanted = small.plan.tensors()
    for name, own in places(net).items():
        if not name.endswith("bias"):
            assert torch.equal(own[0].tensor, wanted[name])
    ids = data()[0][0]
    assert torch.equal(net(ids), small.into(made(kind))(ids))


class Vision(nn.Module):
    """Parameters of two and more dimensions that no layer has."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.scale = nn.Parameter(torch.randn(1, T, 8)), nn.Parameter(torch.ones(8))
        self.table, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, 3)
        self.register_buffer("mask", torch.ones(T, 8))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(((self.table(ids) + self.places) * self.mask * self.scale).mean(1))


def test_other_parameters_are_taken_by_their_names() -> None:
    model = Vision()
    assert list(select(model)) == ["table.weight", "head.weight"]
    assert list(select(model, ["*", "places"])) == ["places", "table.weight", "head.weight"]
    assert list(select(model, ["plac*"])) == ["places"]
    assert list(select(model, ["*", "places"], ["pl*", "t*"])) == ["head.weight"]
    small = fb.compress(model, data(), recipe={"select": {"include": ["*", "places"]}, "train": {"epochs": 1}})
    assert isinstance(small.plan["places"], Clustered)
    assert small.report.identical


def test_a_network_of_nothing_else_is_compressed() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(T, 3))

        def forward(self, ids: Tensor) -> Tensor:
            return ids.float() @ self.matrix

    small = fb.compress(Own(), data(), recipe={"assign": {"method": "none"}, "prune": {"sparsity": 0.5}})
    assert isinstance(small.plan["matrix"], Masked)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("scale", "scale has fewer than two dimensions"),
        ("*.bias", "head.bias has fewer than two dimensions"),
        ("mask", "mask is a buffer"),
        ("placs", "did you mean 'places'"),
    ],
)
def test_a_pattern_for_what_stays_says_why(pattern: str, words: str) -> None:
    with pytest.raises(SelectionError, match=f"matches no weight.*{words}"):
        select(Vision(), [pattern])
    with pytest.raises(SelectionError, match=f"matches no weight.*{words}"):
        select(Vision(), ["*"], [pattern])


def test_the_report_says_what_stays_and_its_share() -> None:
    model = Vision()
    report = fb.compress(model, data(), recipe={"select": {"include": ["head.*"]}, "train": {"epochs": 1}}).report
    assert {row.name: row.numbers for row in report.rest} == {
        "places": 8 * T, "scale": 8, "mask": 8 * T, "table.weight": 8 * WORDS, "head.bias": 3,
    }  # fmt: skip
    assert sum(row.bytes for row in report.rest) + sum(row.bytes for row in report.tensors) < report.file_bytes
    text = " ".join(str(report).split())
    share = 100 * sum(row.bytes for row in report.rest) / report.file_bytes
    assert f"{sum(row.bytes for row in report.rest):,} bytes, {share:.1f}" in text
    assert "table.weight" in text
    assert "was not selected" in text
    assert "is no layer's weight; select it by its name" in text
    assert uncompressed(model, ["head.weight"])["mask"].startswith("is a buffer")
    assert type(report).from_json(report.to_json()).rest == report.rest


def test_measures_of_layers_alone_name_the_weight_that_they_cannot_take() -> None:
    model = made("lstm")
    assert list(layer_weights(model)) == ["head.weight"]
    with pytest.raises(UnsupportedError, match=r"table\.weight: gradients of single samples are known for linear"):
        curvature(model, data())
    assert list(curvature(model, data(), include=["head.*"]).trace) == ["head.weight"]
    recipe = {
        "assign": {"method": "none"},
        "prune": {"method": "wanda", "sparsity": 0.5},
        "measure": {"name": "inputs"},
    }
    with pytest.raises(UnsupportedError, match=r"layer\.weight_ih_l0: norms of inputs are known for linear"):
        fb.compress(model, data(), recipe=recipe)
    left = {"select": {"exclude": ["layer.*"]}, "train": {"epochs": 1}}
    assert fb.compress(model, data(), recipe=recipe | left).report.identical


def test_relevance_reaches_all_of_them() -> None:
    for kind in ("lstm", "attention", "transposed"):
        model = made(kind)
        found = relevance(model, data()).weights
        assert all(float(found[name].abs().sum()) > 0 for name in select(model))
