"""Operations swapped in networks: modules, functions and methods, whoever calls them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from fewbits.approximation import approximations_of
from fewbits.errors import RecipeError
from fewbits.int8.folding import folded
from fewbits.ops import Approximation, evaluate, fit
from fewbits.ops.choose import chosen
from fewbits.ops.places import measure, places
from fewbits.ops.swap import swap

GELU, SILU = fit("gelu", pieces=2), fit("silu", pieces=3)
ROWS, NORM = fit("softmax", pieces=1), fit("layer_norm", pieces=1)


class Odd(nn.Module):
    """Calls the same functions in every way that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.GELU())
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.norm(self.inner(x))
        return {
            "module": h,
            "function": functional.gelu(h),
            "tanh": functional.gelu(h, approximate="tanh"),
            "silu": functional.silu(h),
            "inplace": functional.silu(h.clone(), inplace=True),
            "method": h.softmax(-1),
            "torch": torch.softmax(h, dim=1),
            "named": functional.softmax(input=h, dim=-1),
            "fused": functional.scaled_dot_product_attention(h, h, h, is_causal=True),
            "heads": self.attention(h, h, h, need_weights=False)[0],
            "shares": self.attention(h, h, h)[1],
        }


@pytest.fixture
def odd() -> Odd:
    torch.manual_seed(0)
    return Odd().eval()


@pytest.fixture
def x() -> Tensor:
    return 2 * torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))


MADE = {one.operation: one for one in (GELU, SILU, ROWS, NORM)}


@torch.no_grad()
def test_all_ways_of_calling_an_operation_are_swapped(odd: Odd, x: Tensor) -> None:
    names, before = list(odd.state_dict()), odd(x)
    swap(odd, MADE)
    after = odd(x)
    inner = evaluate(GELU, odd.inner[0](x))
    h = evaluate(NORM, inner, shape=(6,), weight=odd.norm.weight, bias=odd.norm.bias, eps=odd.norm.eps)
    assert torch.equal(after["module"], h)
    assert torch.equal(after["function"], evaluate(GELU, h))
    assert torch.equal(after["tanh"], functional.gelu(h, approximate="tanh"))  # another function
    for way in ("silu", "inplace"):
        assert torch.equal(after[way], evaluate(SILU, h))
    assert torch.equal(after["method"], evaluate(ROWS, h))
    assert torch.equal(after["torch"], evaluate(ROWS, h, dim=1))
    assert torch.equal(after["named"], after["method"])
    scores = (h @ h.transpose(1, 2) / 6**0.5).masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf)
    assert torch.allclose(after["fused"], evaluate(ROWS, scores) @ h, atol=1e-6)
    exact = nn.MultiheadAttention.forward(odd.attention, h, h, h)
    assert not torch.allclose(after["shares"], exact[1], atol=1e-4)
    assert float((after["shares"] - exact[1]).abs().max()) <= ROWS.bound
    assert torch.allclose(after["heads"], odd.attention(h, h, h)[0], atol=0.3)
    assert list(odd.state_dict()) == names
    assert approximations_of(odd) == MADE
    swap(odd, {})
    assert all(torch.equal(odd(x)[way], before[way]) for way in before)
    assert not odd._forward_hooks
    assert not odd._forward_pre_hooks


def test_attention_is_torchs_own_with_an_exact_softmax(odd: Odd, x: Tensor) -> None:
    fine = fit("softmax", error=1e-5)
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(2)) < 0.4
    mask.fill_diagonal_(False)
    calls = [
        lambda: functional.scaled_dot_product_attention(x, x, x, attn_mask=~mask, scale=0.3),
        lambda: functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.randn(5, 5, generator=g())),
        lambda: functional.scaled_dot_product_attention(
            x.expand(2, 3, 5, 6).transpose(1, 0).repeat(1, 2, 1, 1),
            *[x[:, None].expand(3, 2, 5, 6)] * 2, enable_gqa=True,
        ),
        lambda: odd.attention(x, x, x, attn_mask=mask, average_attn_weights=False)[1],
        lambda: odd.attention(x, x, x, key_padding_mask=mask[:3])[0],
    ]  # fmt: skip

    def g() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    class Call(nn.Module):
        def forward(self, at: int) -> Tensor:
            return calls[at]()

    net = Call()
    swap(net, {"softmax": fine})
    with torch.no_grad():
        for at, call in enumerate(calls):
            assert torch.allclose(net(at), call(), atol=1e-4), at
            assert not torch.equal(net(at), call())


def test_copies_and_traced_graphs_compute_likewise(odd: Odd, x: Tensor) -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.GELU()).eval()
    swap(net, {"gelu": GELU})
    graph, _ = folded(net)
    assert isinstance(graph, fx.GraphModule)
    with torch.no_grad():
        expected = net(x[:, 0])
        for other in (copy.deepcopy(net), graph, copy.deepcopy(graph), copy.deepcopy(copy.deepcopy(graph))):
            assert approximations_of(other) == {"gelu": GELU}
            assert torch.allclose(other(x[:, 0]), expected, atol=1e-5)
            swap(other, {})
            assert not torch.allclose(other(x[:, 0]), expected, atol=1e-3)


def test_training_has_the_gradient_of_the_operation_itself(odd: Odd, x: Tensor) -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.LayerNorm(6), nn.Softmax(-1))
    with torch.no_grad():
        swap(net, MADE)
        expected = net(x)
    y = net(x)
    assert torch.equal(y, expected)
    assert y.requires_grad
    hidden = net[0](x).detach().requires_grad_()
    alone = nn.Sequential(nn.GELU())
    swap(alone, {"gelu": GELU})
    (mine,) = torch.autograd.grad(alone(hidden).sum(), hidden)
    (exact,) = torch.autograd.grad(functional.gelu(hidden).sum(), hidden)
    assert torch.equal(mine, exact)
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    first = last = 0.0
    for step in range(60):
        loss = functional.mse_loss(net(x)[..., 0], torch.full((3, 5), 0.8))
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < first / 4


def test_a_replacement_has_a_gradient_of_its_own() -> None:
    net = nn.Sequential(nn.GELU())
    swap(net, {"gelu": fit("gelu", kind="squared-relu")})
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(net(x).sum(), x)
    assert slope.tolist() == [0.0, 4.0]


def test_an_error_on_the_way_leaves_torch_as_it_was(odd: Odd) -> None:
    swap(odd, {"gelu": GELU})
    for _ in range(2):
        with pytest.raises(RuntimeError):
            odd(torch.zeros(1, 5, 7))
        assert torch.equal(torch.nn.functional.gelu(torch.ones(1)), nn.GELU()(torch.ones(1)))
        assert not torch.equal(functional.gelu(torch.ones(1)), evaluate(GELU, torch.ones(1)))
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_network_within_itself_is_swapped_once() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor, again: bool = True) -> Tensor:
            return self(functional.silu(x), again=False) if again else functional.silu(x)

    net = Twice()
    swap(net, {"silu": SILU})
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(net(x), evaluate(SILU, evaluate(SILU, x)))
    swap(net, {"silu": fit("silu", pieces=4)})  # the other one takes its place
    assert len(net._forward_hooks) == 1


@torch.no_grad()
def test_half_precision_stays_what_it_is() -> None:
    net = nn.Sequential(nn.GELU(), nn.Softmax(-1)).to(torch.bfloat16)
    swap(net, {"gelu": GELU, "softmax": ROWS})
    assert net(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert net(torch.ones(2, 3, dtype=torch.float64)).dtype == torch.float64


# -- ranges and errors, place by place -----------------------------------------------------------------------


def test_places_have_the_ranges_and_the_errors_of_their_own_numbers(odd: Odd, x: Tensor) -> None:
    found = places(odd, [x, 2 * x])
    known = {(place.path, place.operation): place for place in found}
    inner = odd.inner[0](torch.cat([x, 2 * x]))
    place = known["inner.1", "gelu"]
    assert (place.calls, place.low, place.high) == (2, float(inner.min()), float(inner.max()))
    assert known["", "softmax"].calls == 2 * 4
    assert known["attention", "softmax"].calls == 2 * 2
    assert known["norm", "layer_norm"].row == 6
    made = chosen({"gelu": {"error": 1e-2}, "softmax": {"error": 1e-2}, "layer_norm": {"bits": 10}}, found)
    assert set(made) == {"gelu", "gelu_tanh", "softmax", "layer_norm"}
    measure(odd, [x, 2 * x], found, made)
    exact = functional.gelu(inner.double()).float()
    assert place.error == pytest.approx(float((evaluate(made["gelu"], inner) - exact).abs().max()), rel=1e-3)
    for one in found:
        if one.operation in made:
            assert 0 < one.error <= made[one.operation].bound


class Masking(nn.Module):
    """Masks that are the least number of the type, one of them of a whole row."""

    def forward(self, x: Tensor) -> Tensor:
        masks = torch.zeros_like(x)
        masks[:, 2:] = torch.finfo(x.dtype).min
        masks[0] = torch.finfo(x.dtype).min
        return torch.softmax(x + masks, -1)


@pytest.mark.parametrize("options", [{"kind": "integer", "bits": 8}, {"error": 1e-3}])
def test_masked_numbers_are_none_of_a_softmax_range(options: dict[str, object]) -> None:
    net, x = Masking(), torch.tensor([[1.0, 2, 3, 4], [-3, 5, 6, 7]])
    (place,) = found = places(net, [x])
    assert (place.low, place.high) == (-3.0, 5.0)
    made = chosen({"softmax": options}, found)
    measure(net, [x], found, made)
    assert place.error <= made["softmax"].bound < 0.02


def test_an_integer_normalisation_is_bounded_on_the_rows_that_it_has(odd: Odd, x: Tensor) -> None:
    found = places(odd, [x])
    made = chosen({"layer_norm": {"kind": "integer", "bits": 8}}, found)["layer_norm"]
    assert 0.5 * made.units[1] < made.bound < 3 * made.units[1]


def test_what_a_network_does_not_call_is_said(odd: Odd, x: Tensor) -> None:
    with pytest.raises(RecipeError, match="calls no sigmoid; it calls gelu, layer_norm, silu, softmax"):
        chosen({"sigmoid": {"error": 1e-2}}, places(odd, [x]))


def test_a_far_range_is_cut_where_the_line_is_good_enough() -> None:
    net = nn.Sequential(nn.GELU())
    wide = chosen({"gelu": {"kind": "table", "error": 1e-3}}, places(net, [torch.linspace(-500, 700, 999)]))["gelu"]
    assert wide.pieces is not None
    low, high = wide.pieces.domain
    assert -4 < low < high < 4
    assert wide.outside <= 1e-3
    assert len(wide.pieces.coefficients) < 150


def test_everything_that_was_asked_for_is_an_approximation(odd: Odd, x: Tensor) -> None:
    asked = {"silu": {"kind": "integer", "bits": 8}, "gelu": {"kind": "squared-relu"}, "softmax": {"kind": "relu"}}
    made = chosen(asked, places(odd, [x]))
    assert all(isinstance(one, Approximation) for one in made.values())
    swap(odd, made)
    assert all(value.isfinite().all() for value in odd(x).values())
