"""Assignments against the reference, which makes the full [levels x weights] table in float64, on small tensors."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor

from fewbits.assign import Assigner, EntropyState, ecq, ecqx, reference, ternary, with_codebooks
from fewbits.plan import Clustered

finite = st.floats(-1, 1, width=32)
weights = st.lists(finite, min_size=1, max_size=40).map(lambda v: torch.tensor([v]))
pairs = st.lists(st.tuples(finite, finite), min_size=1, max_size=40).map(
    lambda v: (torch.tensor([[w for w, _ in v]]), torch.tensor([[s for _, s in v]]))
)
lams = st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 3.0])


def run(assigner: Assigner, weight: Tensor, score: Tensor | None = None) -> tuple[Clustered, EntropyState]:
    plan, state = assigner.update({"a": weight}, None if score is None else {"a": score}, assigner.init({"a": weight}))
    return plan.clustered["a"], state["a"]


def centroids(entry: Clustered) -> Tensor:
    if entry.codebook is not None:
        return torch.tensor(entry.codebook, dtype=torch.float64)
    top = 2 ** (entry.bits - 1) - 1
    return torch.arange(-top, top + 1, dtype=torch.float64) * entry.step


def cost_matrix(weight: Tensor, entry: Clustered, lam: float) -> Tensor:
    """[weights x levels], by the reference."""
    return torch.from_numpy(reference.costs(weight.double().flatten().numpy(), centroids(entry).numpy(), lam)).T


def assert_cheapest(cost: Tensor, entry: Clustered) -> None:
    taken = cost.gather(1, entry.levels.long().flatten()[:, None] + cost.shape[1] // 2).squeeze(1)
    least = cost.min(1).values
    assert (taken <= least + 1e-12 * (1 + least.abs())).all()


@given(
    weights, lams, st.sampled_from([2, 3, 4, 6]), st.sampled_from(["min", "max"]), st.sampled_from(["range", "rate"])
)
def test_ecq_is_the_argmin(weight: Tensor, lam: float, bits: int, scale: str, step: str) -> None:
    entry, record = run(ecq(bits, lam, scale=scale, step_rule=step), weight)
    assert record.lam >= 0
    assert math.isfinite(record.lam)
    assert_cheapest(cost_matrix(weight, entry, record.lam), entry)


@given(weights, lams, st.floats(0.05, 1), st.floats(0.05, 1))
def test_ternary_is_the_argmin(weight: Tensor, lam: float, negative: float, positive: float) -> None:
    assigner = ternary(lam)
    state = with_codebooks(assigner.init({"a": weight}), {"a": (-negative, 0.0, positive)})
    plan, after = assigner.update({"a": weight}, None, state)
    assert_cheapest(cost_matrix(weight, plan.clustered["a"], after["a"].lam), plan.clustered["a"])


@given(weights, st.tuples(lams, lams).map(sorted))
def test_more_lambda_means_fewer_bits_and_more_distortion(weight: Tensor, lam: list[float]) -> None:
    """With P (and so the code lengths) fixed, the sum of lengths never rises with lambda.

    The entropy of the new assignment is at most its mean code length under P, but is not itself monotone.
    """
    bits, distortion = [], []
    for value in lam:
        entry, _ = run(ecq(4, value), weight)
        length = cost_matrix(weight, entry, 1.0) - cost_matrix(weight, entry, 0.0)
        chosen = entry.levels.long().flatten()[:, None] + 7
        bits.append(float(length.gather(1, chosen).sum()))
        distortion.append(float(cost_matrix(weight, entry, 0.0).gather(1, chosen).sum()))
    assert bits[1] <= bits[0] + 1e-9
    assert distortion[1] >= distortion[0] - 1e-9


@given(weights, lams)
def test_levels_rise_with_the_weight(weight: Tensor, lam: float) -> None:
    entry, _ = run(ecq(4, lam), weight)
    assert (entry.levels.flatten()[weight.flatten().argsort()].diff() >= 0).all()


def zero_margin(weight: Tensor, score: Tensor, cost: Tensor, rho: float, beta: Tensor) -> Tensor:
    """[betas x weights]: ln of zero's weighted cost over the best other cost; zero where it is <= 0."""
    zero = cost.shape[1] // 2
    others = cost.clone()
    others[:, zero] = math.inf
    r = (score.abs() / score.abs().max()).double().flatten().clamp(min=1e-12)
    return (rho * r ** beta[:, None] * cost[:, zero]).log() - others.min(1).values.log()


@settings(max_examples=300)
@given(
    pairs,
    lams,
    st.sampled_from([2, 4]),
    st.sampled_from([0.0, 0.05, 0.2, 0.4, 1.0]),
    st.sampled_from([1.5, 2.0, 4.0]),
    st.sampled_from(["range", "rate"]),
)
def test_ecqx_is_the_argmin_at_the_largest_allowed_beta(
    pair: tuple[Tensor, Tensor], lam: float, bits: int, p: float, rho: float, step: str
) -> None:
    weight, score = pair
    entry, record = run(ecqx(bits, lam, p, rho, step_rule=step), weight, score)
    plain, _ = run(ecq(bits, lam, step_rule=step), weight)
    base, n = int((plain.levels == 0).sum()), weight.numel()
    zeros = int((entry.levels == 0).sum())
    assert zeros - base <= math.floor(p * n)
    if record.beta is None:
        assert torch.equal(entry.levels, plain.levels)
        return
    cost = cost_matrix(weight, entry, record.lam)
    mean = float((score.abs() / score.abs().max()).double().mean())
    start = min(1.0, math.log(rho) / -math.log(mean))
    assert 0 <= record.beta <= start * (1 + 1e-6)

    margin = zero_margin(weight, score, cost, rho, torch.tensor([record.beta], dtype=torch.float64))[0]
    clear = margin.abs() > 1e-4
    is_zero = (entry.levels == 0).flatten()
    assert torch.equal(is_zero[clear], margin[clear] <= 0)
    zero = cost.shape[1] // 2
    cost[:, zero] = torch.where(is_zero, -math.inf, math.inf)
    assert_cheapest(cost[~is_zero], Clustered(entry.levels.flatten()[~is_zero][None], bits, step=entry.step))

    # Brute force: every larger beta up to the start has too many zeros.
    if record.beta < start * (1 - 1e-4):
        cost = cost_matrix(weight, entry, record.lam)
        scan = torch.linspace(record.beta, start, 50, dtype=torch.float64)[1:]
        counts = (zero_margin(weight, score, cost, rho, scan) <= 1e-4).sum(1)
        assert (counts > base + math.floor(p * n)).all()


@example((torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0379257]]), torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]])), 1.0, 4, 0.0, 2.0)
@given(
    pairs,
    lams,
    st.sampled_from([2, 3, 4]),
    st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    st.sampled_from([1.0, 2.0, 4.0]),
)
def test_ecqx_equals_the_equations(pair: tuple[Tensor, Tensor], lam: float, bits: int, p: float, rho: float) -> None:
    weight, score = pair
    entry, record = run(ecqx(bits, lam, p, rho), weight, score)
    w, table = weight.double().flatten().numpy(), centroids(entry).numpy()
    costs = reference.costs(w, table, record.lam)
    if record.beta is None:
        levels = torch.from_numpy(reference.cheapest(costs)) - len(table) // 2
        clear = clearly_cheapest(torch.from_numpy(costs))
    elif not clearly_cheapest(torch.from_numpy(costs)).all():
        return  # at lam=1 a weight may cost as much as zero: how many zeros plain ECQ has is then up to rounding
    else:
        found, beta = reference.ecqx(costs, score.double().flatten().numpy(), rho, p)
        levels = torch.from_numpy(found) - len(table) // 2
        assert record.beta == pytest.approx(beta, rel=1e-4, abs=1e-4)
        weighted = torch.from_numpy(costs)
        margin = zero_margin(weight, score, weighted.T, rho, torch.tensor([record.beta, beta], dtype=torch.float64))
        weighted[len(table) // 2] = math.inf
        clear = (margin.abs() > 1e-3).all(0) & ((levels == 0) | clearly_cheapest(weighted))
    assert torch.equal(entry.levels.flatten()[clear].long(), levels[clear])


def clearly_cheapest(costs: Tensor) -> Tensor:
    """Where no second cluster costs as little, but for rounding: bool, one per weight."""
    first, second = costs.sort(0).values[:2]
    return second - first > 1e-12 * (1 + first.abs())


@given(pairs, lams, st.sampled_from([0.05, 0.4]))
def test_released_rule_only_takes_zeros_away(pair: tuple[Tensor, Tensor], lam: float, p: float) -> None:
    weight, score = pair
    entry, record = run(ecqx(4, lam, p, p_rule="released"), weight, score)
    plain, _ = run(ecq(4, lam), weight)
    zeros, base = int((entry.levels == 0).sum()), int((plain.levels == 0).sum())
    assert zeros <= base
    assert record.sparsity == zeros / weight.numel()
