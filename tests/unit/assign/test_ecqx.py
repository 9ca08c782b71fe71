from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fewbits.assign import _diagram as diagram
from fewbits.assign import ecq, ecqx
from fewbits.assign._batched import run_alone
from fewbits.assign._relevance import largest_beta
from fewbits.errors import RecipeError
from fewbits.plan import Clustered


def layer(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(60, 50, generator=g) * 0.1
    return weight, weight * torch.randn(weight.shape, generator=g)


def zeros(entry: Clustered) -> int:
    return int((entry.levels == 0).sum())


@pytest.mark.parametrize("score", [torch.zeros(60, 50), torch.full((60, 50), -0.3), torch.full((60, 50), 1e-40)])
def test_relevance_without_contrast_is_plain_ecq(score: Tensor) -> None:
    weight, _ = layer()
    for options in ({}, {"p_rule": "released"}):
        assigner = ecqx(4, 0.3, **options)
        plan, state = assigner.update({"a": weight}, {"a": score}, assigner.init({"a": weight}))
        plain = ecq(4, 0.3)
        assert plan.equals(plain.update({"a": weight}, None, plain.init({"a": weight}))[0])
        assert state["a"].beta is None


def test_beta_starts_where_the_mean_relevance_changes_nothing() -> None:
    weight, score = layer()
    assigner = ecqx(4, 0.3, p=1.0)
    _, state = assigner.update({"a": weight}, {"a": score}, assigner.init({"a": weight}))
    mean = float((score.abs() / score.abs().max()).mean())
    assert state["a"].beta == pytest.approx(-math.log(2) / math.log(mean), rel=1e-5)
    assert 2 * mean ** state["a"].beta == pytest.approx(1, rel=1e-5)


def test_sign_and_scale_of_the_scores_do_not_matter() -> None:
    weight, score = layer()
    assigner = ecqx(4, 0.3)
    state = assigner.init({"a": weight})
    plan, _ = assigner.update({"a": weight}, {"a": score}, state)
    assert plan.equals(assigner.update({"a": weight}, {"a": -score * 1024}, state)[0])


def test_relevant_weights_survive_and_irrelevant_ones_fall() -> None:
    weight = torch.tensor([[0.30, 0.30, 0.30, 0.70, -0.70, 0.0, 0.05, -0.02]]).repeat(40, 1)
    score = torch.full_like(weight, 0.1)
    score[:, 0], score[:, 1] = 1.0, 0.0
    assigner = ecqx(3, 0.0, p=1.0)
    levels = assigner.update({"a": weight}, {"a": score}, assigner.init({"a": weight}))[0].clustered["a"].levels
    assert levels[:, 0].all()
    assert not levels[:, 1].any()


@pytest.mark.parametrize("p", [0.0, 0.001, 0.02, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0])
def test_p_bounds_the_additional_zeros(p: float, lam: float) -> None:
    weight, score = layer()
    plain = ecq(4, lam)
    base = zeros(plain.update({"a": weight}, None, plain.init({"a": weight}))[0].clustered["a"])
    allowed = math.floor(p * weight.numel())
    assigner = ecqx(4, lam, p=p)
    plan, state = assigner.update({"a": weight}, {"a": score}, assigner.init({"a": weight}))
    assert zeros(plan.clustered["a"]) - base <= allowed
    assert state["a"].sparsity_plain == pytest.approx(base / weight.numel())
    released = ecqx(4, lam, p=p, p_rule="released")
    plan, _ = released.update({"a": weight}, {"a": score}, released.init({"a": weight}))
    assert base - allowed <= zeros(plan.clustered["a"]) <= base


def test_the_bound_is_used_up() -> None:
    weight, score = layer()
    assigner = ecqx(4, 0.3, p=0.05)
    _, state = assigner.update({"a": weight}, {"a": score}, assigner.init({"a": weight}))
    assert state["a"].sparsity - state["a"].sparsity_plain == pytest.approx(0.05)


def test_momentum_mixes_signed_scores() -> None:
    weight, first = layer(0)
    _, second = layer(1)
    assigner = ecqx(4, 0.3, momentum=0.25)
    _, state = assigner.update({"a": weight}, {"a": first}, assigner.init({"a": weight}))
    torch.testing.assert_close(state["a"].scores, first)
    _, state = assigner.update({"a": weight}, {"a": second}, state)
    torch.testing.assert_close(state["a"].scores, 0.75 * second + 0.25 * first)
    plan, after = assigner.update({"a": weight}, None, state)
    fresh = ecqx(4, 0.3)
    assert plan.equals(fresh.update({"a": weight}, {"a": state["a"].scores}, fresh.init({"a": weight}))[0])
    assert after["a"].scores is state["a"].scores


@pytest.mark.parametrize("options", [{}, {"p": 0.02}, {"p_rule": "released"}])
def test_pieces_of_any_size_give_the_same_plan(
    options: dict[str, float | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, score = layer()
    assigner = ecqx(4, 0.3, **options)  # type: ignore[arg-type]
    state = assigner.init({"a": weight})
    whole, _ = assigner.update({"a": weight}, {"a": score}, state)
    monkeypatch.setattr(diagram, "CHUNK", 97)
    assert whole.equals(assigner.update({"a": weight}, {"a": score}, state)[0])


def test_without_any_scores_it_is_ecq() -> None:
    weight, _ = layer()
    assigner, plain = ecqx(4, 0.3), ecq(4, 0.3)
    plan, state = assigner.update({"a": weight}, None, assigner.init({"a": weight}))
    assert plan.equals(plain.update({"a": weight}, None, plain.init({"a": weight}))[0])
    assert state["a"].beta is None


def beta_of(tau: Tensor, start: float, least: int, most: int) -> float | None:
    return run_alone(largest_beta(tau, start, least, most))


def test_largest_beta() -> None:
    tau = torch.tensor([0.0, 0.1, 0.2, 0.2, 0.3, torch.inf])
    assert beta_of(tau, 0.25, least=0, most=4) == 0.25
    below = beta_of(tau, 0.25, least=0, most=3)
    assert below is not None
    assert below < 0.2
    assert int((tau <= below).sum()) == 2  # both at 0.2 or neither
    assert beta_of(tau, 0.05, least=2, most=3) == pytest.approx(0.1)
    assert int((tau <= beta_of(tau, 0.05, least=3, most=3)).sum()) == 2  # the upper bound wins
    assert int((tau <= beta_of(tau, 0.05, least=6, most=6)).sum()) == 5  # infinity is out of reach
    assert beta_of(torch.zeros(3), 0.5, least=0, most=2) is None


@pytest.mark.parametrize(
    "options",
    [
        {"p": -0.1},
        {"p": 1.1},
        {"rho": 0.5},
        {"rho": float("inf")},
        {"momentum": 1.0},
        {"p_rule": "papper"},
    ],
)
def test_impossible_options(options: dict[str, float | str]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ecqx(**options)  # type: ignore[arg-type]
