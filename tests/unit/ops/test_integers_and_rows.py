"""Softmax, normalisation and integers: against exact ones, and bit for bit against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fewbits.approximation import Approximation, Pieces
from fewbits.errors import RecipeError
from fewbits.ops import Approximated, evaluate, fit, reference
from fewbits.ops._integer import root, softmax_bound


@given(st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=50))
def test_the_integer_root_is_exact(values: list[int]) -> None:
    assert root(np.array(values, np.int64)).tolist() == [math.isqrt(v) for v in values]


def test_the_integer_root_is_exact_near_squares() -> None:
    every = np.concatenate([np.arange(3000), *((2 ** np.arange(1, 31)) ** 2 + off for off in (-1, 0, 1))])
    squares = np.arange(1, 2**31 - 1, 7_654_321) ** 2
    every = np.concatenate([every, squares, squares - 1, squares + 1]).astype(np.int64)
    assert root(every).tolist() == [math.isqrt(int(v)) for v in every]


@pytest.mark.parametrize("size", [{"error": 1e-3}, {"degree": 3}, {"bits": 8}, {"bits": 12}, {"pieces": 3}], ids=str)
def test_softmax_is_within_its_bound(size: dict[str, float]) -> None:
    found = fit("softmax", **size)
    generator = torch.Generator().manual_seed(0)
    for scale, row in ((0.0, 5), (0.1, 1000), (2.0, 50), (30.0, 20), (1000.0, 4), (1.0, 1)):
        x = scale * torch.randn(200, row, generator=generator)
        y = evaluate(found, x)
        assert float((y.double() - x.double().softmax(-1)).abs().max()) <= found.bound
        assert torch.equal(evaluate(found, x.T, dim=0), y.T)
    masked = torch.tensor([[1.0, -math.inf, 2.0], [-math.inf] * 3])
    assert evaluate(found, masked)[0, 1] == 0
    assert evaluate(found, masked).isfinite().all()
    if "error" in size:
        assert found.bound <= size["error"]


def test_the_bound_of_integer_softmax_knows_long_rows() -> None:
    assert softmax_bound(8, 4096) > softmax_bound(8, 16)
    x = torch.zeros(1, 4096)
    assert float((evaluate(fit("softmax", bits=12), x) - 1 / 4096).abs().max()) <= softmax_bound(12, 4096)


def test_relu_attention_is_divided_by_the_length_of_the_row() -> None:
    found = evaluate(fit("softmax", kind="relu"), torch.tensor([[1.0, -2.0, 4.0, -math.inf]]))
    assert torch.equal(found, torch.tensor([[0.25, 0.0, 1.0, 0.0]]))
    squared = evaluate(fit("gelu", kind="squared-relu"), torch.tensor([-1.0, 3.0]))
    assert torch.equal(squared, torch.tensor([0.0, 9.0]))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("size", [{"error": 1e-3}, {"degree": 2}, {"pieces": 7}], ids=str)
def test_normalisation_is_within_its_share(name: str, size: dict[str, float]) -> None:
    found = fit(name, **size)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-3, 1.0, 300.0):
        x = scale * (torch.randn(400, 48, generator=generator, dtype=torch.float64) + 0.5)
        of = {"layer_norm": nn.functional.layer_norm, "rms_norm": nn.functional.rms_norm}[name]
        exact = of(x.float().double(), (48,), eps=1e-6)
        y = evaluate(found, x.float(), shape=(48,), eps=1e-6).double()
        off = (y - exact).abs() - 2e-6 * exact.abs().amax(-1, keepdim=True)  # the mean, in float32
        assert float((off / exact.abs().clamp(min=1e-2)).max()) <= found.bound
    weight, bias = torch.randn(48, generator=generator), torch.randn(48, generator=generator)
    options = {"weight": weight} | ({"bias": bias} if name == "layer_norm" else {})
    shifted = evaluate(found, x.float(), shape=(48,), eps=1e-6, **options)
    expected = y.float() * weight + (bias if name == "layer_norm" else 0)
    torch.testing.assert_close(shifted, expected)


def integers(operation: str, bits: int) -> Approximation:
    domain = (-4.0, 4.0) if operation != "softmax" else None
    return fit(operation, domain, bits=bits)


@pytest.mark.parametrize("operation", ["gelu", "sigmoid", "tanh", "exp", "softmax", "layer_norm", "rms_norm"])
@pytest.mark.parametrize("bits", [4, 8, 11])
def test_torch_equals_the_integer_reference_bit_for_bit(operation: str, bits: int) -> None:
    found = integers(operation, bits)
    rng = np.random.default_rng(2)
    most = 2 ** (bits - 1) - 1 if found.pieces is not None else 2**13
    levels = rng.integers(-most, most + 1, (2000, 24))
    levels[0], levels[1] = 0, most
    epsilon = 0 if found.pieces is not None or operation == "softmax" else 3
    x = torch.from_numpy((levels * found.units[0]).astype(np.float32))
    options = {} if not epsilon else {"shape": (24,), "eps": epsilon * found.units[0] ** 2}
    expected = reference(found, levels, epsilon=epsilon)
    assert torch.equal(evaluate(found, x, **options), torch.from_numpy(expected).float() * found.units[1])


def test_integer_normalisation_is_near_the_exact_one() -> None:
    found = fit("layer_norm", (-6.0, 6.0), bits=12)
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(3))
    off = evaluate(found, x, shape=(64,)) - nn.functional.layer_norm(x, (64,))
    assert float(off.abs().max()) < 2 * found.units[1]


def test_there_is_a_reference_for_integers_only() -> None:
    with pytest.raises(RecipeError, match="no integer reference: fit it with bits"):
        reference(fit("gelu", pieces=4), np.zeros(3))
    with pytest.raises(RecipeError, match="at most 1625"):
        reference(fit("rms_norm", bits=8), np.zeros((1, 5000)))


def test_a_module_keeps_the_type_of_its_input() -> None:
    module = Approximated(fit("gelu", error=1e-3))
    assert module(torch.zeros(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert "gelu by" in repr(module)


PIECES = Pieces((0.0, 1.0), ((0.0,),))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Pieces((0.0, 0.0), ((1.0,),)),
        lambda: Pieces((0.0, math.nan), ((1.0,),)),
        lambda: Pieces((0.0, 1.0), ((math.inf,),)),
        lambda: Pieces((0.0, 1.0), ()),
        lambda: Pieces((0.0, 1.0, 2.0), ((1.0,), (1.0, 2.0))),
        lambda: Pieces((0.0, 1.0), ((1.0,),), scale=3.0),
        lambda: Pieces((0.0, 1.0), ((1.0,),), shift=31),
        lambda: Approximation("gelu", "lines"),
        lambda: Approximation("gelu", "spline", PIECES),
        lambda: Approximation("gelu", "relu"),
        lambda: Approximation("softmax", "lines", PIECES),
        lambda: Approximation("gelu", "lines", PIECES, reduced=True),
        lambda: Approximation("softmax", "integer", bits=15),
        lambda: Approximation("gelu", "integer", PIECES, bits=8, units=(0.0, 1.0)),
        lambda: Approximation("gelu", "lines", PIECES, bound=math.nan),
    ],
)
def test_an_approximation_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(RecipeError):
        wrong()
