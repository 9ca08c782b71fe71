"""Transforms see through quantizers of activations: forward mode, vmap, both; gradients are what they were."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from fewbits.int8.affine_grid import LEVELS, fake_quantize, range_parameters
from fewbits.int8.quantizer import RangedQuantizer

RANGES = [(-1.0, 1.5), (0.0, 2.0), (-0.7, 0.0)]
G = torch.Generator().manual_seed(0)
X = 2 * torch.randn(40, generator=G)


def quantizer(low: float, high: float) -> RangedQuantizer:
    made = RangedQuantizer()
    with torch.no_grad():
        made.low.fill_(low)
        made.high.fill_(high)
    made.learn()
    return made.eval()


def call(made: nn.Module, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return functional_call(made, {"low": low, "high": high}, (x,))


def gradients_by_hand(x: Tensor, low: Tensor, high: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LSQ's, in the order of operations that trained files rest on."""
    scale, z = range_parameters(low, high)
    level = x / scale
    nearest = level.round()
    below, above = nearest < -z, nearest > LEVELS - z
    to_x = upstream.masked_fill(below | above, 0.0)
    inside = (to_x * (nearest - level)).sum() / LEVELS
    return to_x, upstream[below].sum() - inside, inside + upstream[above].sum()


@pytest.mark.parametrize("ends", RANGES)
def test_gradients_are_to_the_bit_what_they_were(ends: tuple[float, float]) -> None:
    made, x = quantizer(*ends), torch.randn(7, 301, generator=G).mul_(2).requires_grad_()
    upstream = torch.randn(7, 301, generator=G)
    value = made(x)
    value.backward(upstream)
    low, high = made.low.detach(), made.high.detach()
    to_x, to_low, to_high = gradients_by_hand(x.detach(), low, high, upstream)
    assert torch.equal(value, fake_quantize(x.detach(), *range_parameters(low, high)))
    assert torch.equal(x.grad, to_x)
    assert torch.equal(made.high.grad, to_high)
    if ends[0] < 0:
        assert torch.equal(made.low.grad, to_low)
    else:
        assert made.low.grad is None


@settings(deadline=None, max_examples=30)  # the first forward-mode call loads a compiler
@given(st.sampled_from(RANGES), st.integers(0, 2**31))
def test_forward_mode_is_the_transpose_of_backward_mode(ends: tuple[float, float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    made, point = quantizer(*ends).double(), tuple(t.double() for t in (X, *map(torch.tensor, ends)))
    tangents = tuple(torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in point)
    upstream = torch.randn(X.shape, generator=generator, dtype=torch.float64)
    value, moved = jvp(lambda *at: call(made, *at), point, tangents)
    assert torch.equal(value, made(X.double()))
    _, back = vjp(lambda *at: call(made, *at), *point)
    expected = sum((g * t).sum() for g, t in zip(back(upstream), tangents, strict=True))
    torch.testing.assert_close((upstream * moved).sum(), expected)


def test_the_range_moves_what_it_cuts_off_as_finite_differences_say() -> None:
    """Inside, the surrogate keeps each activation's level and what rounding added to it, in units of the scale."""
    made, shift = quantizer(*RANGES[0]), 1e-3
    low, high = map(torch.tensor, RANGES[0])
    cut = torch.tensor([-5.0, 5.0, 9.0])
    _, moved = jvp(lambda a, b: call(made, cut, a, b), (low, high), (torch.tensor(1.0), torch.tensor(-2.0)))
    assert moved.tolist() == [1.0, -2.0, -2.0]
    scale = (high - low) / LEVELS
    x = torch.tensor([0.31, -0.42])
    _, moved = jvp(lambda b: call(made, x, low, b), (high,), (torch.tensor(1.0),))
    level = (x / scale).round()
    held = [(level - x / scale) * (scale + s * shift / LEVELS) + x for s in (1, -1)]  # straight through but for scale
    torch.testing.assert_close(moved, (held[0] - held[1]) / (2 * shift), rtol=1e-2, atol=1e-5)


def test_vmap_over_activations_ranges_directions_and_gradients() -> None:
    made = quantizer(*RANGES[0])
    xs, upstream = torch.randn(3, 8, generator=G).mul_(2), torch.randn(3, 8, generator=G)
    lows, highs = torch.tensor([-1.0, -0.5, -2.0]), torch.tensor([1.5, 0.5, 1.0])
    everything = (xs, lows, highs)

    def loss(x: Tensor, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
        return (call(made, x, low, high) * u).sum()

    def slopes(*at: Any) -> tuple[Tensor, ...]:
        return grad(loss, argnums=(0, 1, 2))(*at)

    values = vmap(lambda *at: call(made, *at))(*everything)
    each = vmap(slopes)(*everything, upstream)
    shared = vmap(slopes, in_dims=(0, None, None, 0))(xs, lows[0], highs[0], upstream)
    moved = vmap(lambda x, a, b, t: jvp(lambda *at: call(made, *at), (x, a, b), (t, a, b))[1])(*everything, upstream)
    for i in range(3):
        x, low, high, u = xs[i], lows[i], highs[i], upstream[i]
        torch.testing.assert_close(values[i], call(made, x, low, high))
        torch.testing.assert_close(tuple(s[i] for s in each), gradients_by_hand(x, low, high, u))
        torch.testing.assert_close(tuple(s[i] for s in shared), gradients_by_hand(x, lows[0], highs[0], u))
        torch.testing.assert_close(moved[i], jvp(lambda *at: call(made, *at), (x, low, high), (u, low, high))[1])


def test_a_compiler_still_finds_one_graph() -> None:
    made, x = quantizer(*RANGES[0]), X.clone().requires_grad_()
    torch.compile(made, backend="aot_eager", fullgraph=True)(x).sum().backward()
    assert torch.equal(x.grad, gradients_by_hand(X, made.low.detach(), made.high.detach(), torch.ones(40))[0])
