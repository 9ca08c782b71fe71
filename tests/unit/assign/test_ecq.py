from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from fewbits.assign import ecq, with_curvatures, with_steps
from fewbits.assign.rate import Rate, prices
from fewbits.errors import NonFiniteError, RecipeError, SelectionError

TABLE = np.array([-1.0, 0.0, 1.0])


def test_information_content() -> None:
    assert Rate(1.0).information(np.array([1, 2, 1])).tolist() == [2.0, 1.0, 2.0]
    assert Rate(1.0).information(np.array([0, 4, 4])).tolist() == [np.inf, 1.0, 1.0]


def test_zero_cluster_is_never_empty() -> None:
    assert Rate(1.0).information(np.array([3, 0, 4])).tolist() == pytest.approx([np.log2(8 / 3), 3.0, 1.0])


def test_zero_floor_shrinks_the_others_in_proportion() -> None:
    bits = Rate(1.0, zero_floor=0.5).information(np.array([6, 1, 3]))
    assert (2.0**-bits).tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 6])
    bits = Rate(1.0, zero_floor=0.5).information(np.array([1, 6, 3]))
    assert (2.0**-bits).tolist() == pytest.approx([0.1, 0.6, 0.3])


@pytest.mark.parametrize(("scale", "expected"), [("min", (0.8**2 - 0.2**2) / 2), ("max", (1.5**2 - 0.5**2) / 2)])
def test_lambda_max_sends_the_outermost_weight_to_zero(scale: str, expected: float) -> None:
    bits = np.array([3.0, 1.0, 3.0])
    lam = Rate(1.0, scale).multiplier(-0.8, 1.5, TABLE, np.array([1, 4, 1]), bits)
    assert lam == pytest.approx(expected)
    weight, centroid = (-0.8, -1.0) if scale == "min" else (1.5, 1.0)
    assert weight**2 + lam * bits[1] == pytest.approx((weight - centroid) ** 2 + lam * bits[2])


def test_lambda_max_with_one_side_or_none() -> None:
    rate = Rate(1.0)
    assert rate.multiplier(0.0, 1.5, TABLE, np.array([0, 4, 2]), np.array([np.inf, 1.0, 3.0])) == 1.0
    # The outermost clusters are at least as probable as zero: no multiplier sends them there.
    assert rate.multiplier(-1.0, 1.0, TABLE * 3, np.array([4, 2, 4]), np.array([1.0, 2.0, 1.0])) == 9.0
    assert rate.multiplier(0.0, 0.0, TABLE * 3, np.array([0, 2, 0]), np.array([np.inf, 0.0, np.inf])) == 9.0


def test_small_layers_are_spared() -> None:
    big, small = torch.randn(50, 40), torch.randn(10, 10)
    assigner = ecq(4, 0.5, scale="step", sustain=0.05)
    weights = {"big": big, "small": small}
    state = with_steps(assigner.init(weights), {"big": 0.5, "small": 0.5})
    _, state = assigner.update(weights, None, state)
    assert state["big"].lam == pytest.approx(0.5 * 0.25)
    assert state["small"].lam == pytest.approx(0.5 * 0.25 * (100 / 2000 + 0.05) / 1.05)


def test_lambda_raises_sparsity() -> None:
    weights = {"a": torch.randn(100, 100, generator=torch.Generator().manual_seed(0))}
    shares = []
    for lam in (0.0, 0.1, 0.5, 2.0):
        assigner = ecq(4, lam)
        shares.append(assigner.update(weights, None, assigner.init(weights))[1]["a"].sparsity)
    assert shares == sorted(set(shares))


def test_iterating_never_costs_more() -> None:
    """Distortion plus lambda times n times entropy falls with every re-estimate of P."""
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    objective = []
    for iterations in range(1, 8):
        assigner = ecq(4, 0.02, scale="step", iterations=iterations)
        plan, state = assigner.update({"a": weight}, None, assigner.init({"a": weight}))
        entry = plan.clustered["a"]
        share = torch.bincount(entry.levels.flatten().long() + 7) / weight.numel()
        entropy = -(share[share > 0] * share[share > 0].log2()).sum()
        objective.append(float((weight - entry.values()).square().sum() + state["a"].lam * weight.numel() * entropy))
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(objective))


@pytest.mark.parametrize(
    "options",
    [
        {"lam": -0.1},
        {"lam": float("nan")},
        {"scale": "mni"},
        {"sustain": 1.5},
        {"zero_floor": 1.0},
        {"iterations": 0},
        {"bits": 1},
    ],
)
def test_impossible_options(options: dict[str, float | str]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ecq(**options)  # type: ignore[arg-type]


def test_marginal_lambda_costs_equal_loss_in_every_layer() -> None:
    weights = {"a": torch.randn(50, 40), "b": torch.randn(10, 10)}
    assigner = ecq(4, 0.5, scale="marginal")
    state = with_steps(assigner.init(weights), {"a": 0.5, "b": 0.25})
    state = with_curvatures(state, {"a": 3.0, "b": 12.0})
    _, state = assigner.update(weights, None, state)
    assert state["a"].lam * 3.0 == pytest.approx(state["b"].lam * 12.0)
    assert state["a"].lam == pytest.approx(0.5 * (2000 * 0.25 * 3 + 100 * 0.0625 * 12) / 2100 / 3)


def test_equal_marginal_cost_is_the_best_division_of_bits() -> None:
    """Brute force over pairs of lambdas, at a fixed worth of a bit."""
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(60, 60, generator=generator), "b": 0.2 * torch.randn(40, 40, generator=generator)}
    curvatures = {"a": 1.0, "b": 9.0}

    def outcome(name: str, lam: float) -> tuple[float, float]:
        assigner = ecq(4, lam / prices_of[name], scale="marginal", iterations=30)
        plan, _ = assigner.update(weights, None, state)
        entry = plan.clustered[name]
        shares = torch.bincount((entry.levels + 7).flatten().long()).double()
        shares = shares[shares > 0] / shares.sum()
        error = curvatures[name] * float((entry.values() - weights[name]).square().sum())
        return error, float(-(shares * shares.log2()).sum()) * entry.levels.numel()

    state = with_curvatures(ecq(4).init(weights), curvatures)
    layers = {n: (w.numel(), state[n].step, curvatures[n]) for n, w in weights.items()}
    prices_of = prices(layers)
    multipliers = [0.002 * 1.6**k for k in range(14)]
    curves = {n: [outcome(n, m / curvatures[n]) for m in multipliers] for n in weights}
    worth = multipliers[6]  # of a bit, in loss
    cost = {
        (i, j): a[0] + b[0] + worth * (a[1] + b[1])
        for i, a in enumerate(curves["a"])
        for j, b in enumerate(curves["b"])
    }
    i, j = min(cost, key=cost.__getitem__)
    assert abs(i - 6) <= 1  # the Lagrangian is least where a bit is worth the same in both layers
    assert abs(j - 6) <= 1


def test_marginal_lambda_needs_curvatures() -> None:
    weights = {"a": torch.randn(5, 4)}
    assigner = ecq(4, 0.5, scale="marginal")
    state = assigner.init(weights)
    with pytest.raises(RecipeError, match="curvature of 'a'"):
        assigner.update(weights, None, state)
    with pytest.raises(RecipeError, match="positive"):
        with_curvatures(state, {"a": 0.0})
    with pytest.raises(NonFiniteError, match="'a' is nan"):
        with_curvatures(state, {"a": float("nan")})
    with pytest.raises(SelectionError, match="'c'"):
        with_curvatures(state, {"c": 1.0})
