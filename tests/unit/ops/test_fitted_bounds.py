"""Every approximation keeps the bound that it states: on a million points and at the ends, for all kinds and sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.approximation import Approximation
from fewbits.errors import DataError, RecipeError
from fewbits.ops import FUNCTIONS, evaluate, fit

POINTS = 1_000_000
ONE = [name for name in FUNCTIONS if name != "exp2"]
REDUCED = ("exp", "log", "reciprocal", "rsqrt")


def worst(found: Approximation, x: torch.Tensor) -> float:
    """The largest error, in the unit of the bound, against float64."""
    exact = torch.from_numpy(FUNCTIONS[found.operation](x.double().numpy()))
    off = (evaluate(found, x).double() - exact).abs()
    return float((off / exact.abs() if found.relative else off).max())


def points(low: float, high: float, count: int = POINTS, seed: int = 0) -> torch.Tensor:
    """Even and random ones, the ends, and their neighbours in float32."""
    even = np.linspace(low, high, count // 2).astype(np.float32)
    drawn = np.random.default_rng(seed).uniform(low, high, count // 2).astype(np.float32)
    ends = np.float32([low, high])
    near = np.concatenate([ends, np.nextafter(ends, ends[::-1])])
    return torch.from_numpy(np.clip(np.concatenate([even, drawn, near]), low, high).astype(np.float32))


@st.composite
def fitted(draw: st.DrawFn) -> Approximation:
    name = draw(st.sampled_from(ONE))
    usual = FUNCTIONS[name].domain
    low = draw(st.floats(0.05, 3)) if FUNCTIONS[name].low == 0 else draw(st.floats(-9, 2))
    high = low + draw(st.floats(0.25, 12))
    if name == "exp":
        high = min(high, 5.0)
    domain = draw(st.sampled_from([usual, (low, max(high, low + 0.25))]))
    kind = draw(st.sampled_from(["lines", "table", "polynomial", "integer"]))
    if kind == "integer":
        try:
            return fit(name, domain, bits=draw(st.integers(4, 11)))
        except RecipeError:  # levels too few, or slopes too large
            return fit(name, domain, pieces=4, kind="table")
    if kind == "polynomial":
        return fit(name, domain, degree=draw(st.integers(1, 11)), pieces=draw(st.sampled_from([None, 3])))
    return fit(name, domain, kind=kind, pieces=draw(st.integers(1, 24)))


@settings(max_examples=25)
@given(fitted(), st.integers(0, 1000))
def test_the_error_is_within_the_bound_and_the_bound_is_no_excuse(found: Approximation, seed: int) -> None:
    assert found.pieces is not None
    low, high = found.pieces.domain
    unit = found.units[0]
    x = points(low * unit, high * unit, 20_000, seed)
    error = worst(found, x)
    assert error <= found.bound
    if found.kind != "integer":  # between points of integers it speaks of the steepest place
        largest = float(np.abs(FUNCTIONS[found.operation](np.array([low, high]))).max())
        assert found.bound <= 1.02 * error + 1e-5 * (1 + largest)


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("size", [{"pieces": 9}, {"kind": "table", "pieces": 33}, {"degree": 4}, {"bits": 8}], ids=str)
def test_a_million_points_and_the_ends(name: str, size: dict[str, int]) -> None:
    domain = FUNCTIONS[name].domain
    found = fit(name, domain, **size)
    assert worst(found, points(*domain, POINTS // 10)) <= found.bound


@pytest.mark.long
@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize(
    "size",
    [{"pieces": n} for n in (1, 2, 5, 16, 64)]
    + [{"kind": "table", "pieces": n} for n in (1, 7, 256, 1000)]
    + [{"degree": n} for n in range(1, 13)]
    + [{"bits": n} for n in range(4, 13)],
    ids=str,
)
def test_a_million_points_for_all_kinds_degrees_and_pieces(name: str, size: dict[str, int]) -> None:
    domain = FUNCTIONS[name].domain
    found = fit(name, domain, **size)
    assert worst(found, points(*domain)) <= found.bound


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("size", [{"pieces": 6}, {"degree": 2}, {"error": 1e-4}], ids=str)
def test_without_a_domain_the_bound_holds_for_all_normal_numbers(name: str, size: dict[str, float]) -> None:
    found = fit(name, **size)
    drawn = torch.from_numpy(np.random.default_rng(1).uniform(-126, 127, 60_000))
    x = torch.exp2(drawn).float() if name != "exp" else torch.linspace(-87, 88, 60_000)
    assert worst(found, x) <= found.bound
    if "error" in size:
        assert found.bound <= size["error"]
    assert evaluate(found, torch.tensor([math.nan])).isnan().all()
    if name != "exp":
        special = torch.tensor([0.0, math.inf])
        assert torch.equal(evaluate(found, special), FUNCTIONS[name].exact(special))


@pytest.mark.parametrize("name", [n for n in ONE if math.isfinite(FUNCTIONS[n].furthest)])
def test_beyond_the_domain_a_function_goes_on_as_the_line_that_it_approaches(name: str) -> None:
    found = fit(name, (-3.0, 2.5), pieces=8)
    x = torch.cat([torch.linspace(-40, -3.0001, 20_001), torch.linspace(2.5001, 40, 20_001)])
    assert worst(found, x) <= found.outside < 0.2
    assert worst(fit(name, (-0.1, 0.1), pieces=2), x) <= fit(name, (-0.1, 0.1), pieces=2).outside
    far = torch.tensor([-1e30, -math.inf, 1e30, math.inf])
    line = FUNCTIONS[name].right
    assert line is not None
    assert torch.equal(evaluate(found, far[2:]), line[0] + line[1] * far[2:] if line[1] else torch.ones(2))


def test_outside_is_clamped_continued_or_refused() -> None:
    refused = fit("exp", (-1.0, 1.0), degree=3)
    with pytest.raises(DataError, match=r"exp got 1.5, outside of its domain \[-1, 1\]"):
        evaluate(refused, torch.tensor([0.0, 1.5]))
    assert evaluate(refused, torch.tensor([-1.0, 1.0])).isfinite().all()
    clamped = fit("exp", (-1.0, 1.0), degree=3, outside="clamp")
    assert torch.equal(evaluate(clamped, torch.tensor([5.0, math.inf])), evaluate(clamped, torch.tensor([1.0, 1.0])))
    on = evaluate(fit("log", (1.0, 2.0), degree=3, outside="continue"), torch.tensor([2.0, 2.5, 3.0]))
    assert float(on[2] - on[1]) == pytest.approx(float(on[1] - on[0]), rel=1e-4)
    assert float(on[2] - on[1]) == pytest.approx(0.25, rel=0.05)


def test_the_bars() -> None:
    assert fit("gelu", (-8, 8), pieces=16).bound <= 2.2e-3  # I-BERT's: 1.8e-2
    assert fit("exp", (-math.log(2), 0), degree=3).bound <= 6e-5


def least_pieces(name: str, domain: tuple[float, float], allowed: float) -> int:
    """How many lines any approximation needs, by another way: strips around points, their slope by thirds."""
    x = np.linspace(*domain, 1201)
    y = FUNCTIONS[name](x)

    def fits(i: int, j: int) -> bool:
        a, b = (
            (np.diff(y[i : j + 1]) / np.diff(x[i : j + 1])).min(),
            (np.diff(y[i : j + 1]) / np.diff(x[i : j + 1])).max(),
        )
        for _ in range(40):
            c, d = a + (b - a) / 3, b - (b - a) / 3
            first, second = (np.ptp(y[i : j + 1] - slope * x[i : j + 1]) for slope in (c, d))
            a, b = (a, d) if first < second else (c, b)
        return bool(np.ptp(y[i : j + 1] - (a + b) / 2 * x[i : j + 1]) / 2 <= allowed)

    count, at = 0, 0
    while at < len(x) - 1:
        low, high = at + 1, len(x) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(at, middle) else (low, middle - 1)
        count, at = count + 1, low
    return count


@pytest.mark.parametrize(("name", "pieces"), [("gelu", 6), ("gelu", 16), ("sigmoid", 9), ("silu", 12), ("tanh", 5)])
def test_lines_are_within_five_percent_of_the_best_that_any_could_be(name: str, pieces: int) -> None:
    domain = FUNCTIONS[name].domain
    found = fit(name, domain, pieces=pieces)
    assert least_pieces(name, domain, found.bound / 1.05) > pieces


def test_an_error_is_kept_with_as_few_pieces_as_it_needs() -> None:
    for error in (1e-2, 1e-3, 1e-4):
        found = fit("gelu", (-8, 8), kind="lines", error=error)
        assert found.pieces is not None
        assert found.bound <= error
        assert least_pieces("gelu", (-8, 8), error) >= len(found.pieces.coefficients) - 1
        degree = fit("tanh", (-1, 1), kind="polynomial", error=error).pieces
        assert degree is not None
        assert fit("tanh", (-1, 1), degree=degree.degree - 1).bound > error


def test_the_cheapest_kind_is_the_one_of_fewest_steps() -> None:
    found = fit("tanh", error=1e-2)
    others = [fit("tanh", kind=kind, error=1e-2) for kind in ("lines", "table")]
    assert found.work == min(other.work for other in others)
    assert fit("sigmoid", (-0.1, 0.1), error=1e-3).kind == "lines"  # one line, which no table beats


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"operation": "geluu", "error": 1}, "did you mean 'gelu'"),
        ({"operation": "gelu"}, "say error, pieces, degree or bits"),
        ({"operation": "gelu", "kind": "splines", "error": 1}, "there are lines"),
        ({"operation": "gelu", "kind": "lines", "bits": 4}, "takes error, pieces, and no bits"),
        ({"operation": "gelu", "error": 1e-3, "pieces": 4}, "not both"),
        ({"operation": "gelu", "bits": 8, "pieces": 4}, "leave pieces out"),
        ({"operation": "gelu", "error": -1.0}, "positive"),
        ({"operation": "gelu", "error": math.nan}, "positive"),
        ({"operation": "gelu", "pieces": 0}, "from 1 to 4096"),
        ({"operation": "gelu", "pieces": True}, "whole number"),
        ({"operation": "gelu", "bits": 13}, "from 2 to 12"),
        ({"operation": "gelu", "pieces": 4, "domain": (3, 1)}, "the smaller first"),
        ({"operation": "gelu", "pieces": 4, "domain": (0, math.inf)}, "finite"),
        ({"operation": "log", "pieces": 4, "domain": (0, 1)}, "above 0 only"),
        ({"operation": "gelu", "kind": "polynomial", "error": 1e-4}, "another kind"),
        ({"operation": "gelu", "kind": "lines", "error": 1e-12}, "allow more"),
        ({"operation": "exp", "bits": 8}, "need a domain"),
        ({"operation": "gelu", "kind": "relu"}, "relu for softmax"),
        ({"operation": "softmax", "kind": "squared-relu"}, "relu for softmax"),
        ({"operation": "gelu", "kind": "squared-relu", "error": 1}, "takes nothing more"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_a_way_out(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        fit(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ONE)
def test_the_bounds_of_derivatives_hold(name: str) -> None:
    function = FUNCTIONS[name]
    low, high = (0.02, 12.0) if function.low == 0 else (-9.0, 6.0)
    ends = np.linspace(low, high, 301)
    x = torch.linspace(low, high, 30_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function.exact(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    cell = np.clip(np.searchsorted(ends, x.detach().numpy(), side="right") - 1, 0, 299)
    for derivative, bounds in ((slope, function.first), (bend, function.second)):
        assert (derivative.detach().abs().numpy() <= bounds(ends[:-1], ends[1:])[cell] * (1 + 1e-9) + 1e-12).all()
