"""Steps that follow the rate: against brute force over steps, and what training and search make of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.assign import Assigner, ecq, ecqx, ternary, with_steps
from fewbits.assign._batched import run_alone
from fewbits.assign._diagram import boundaries, count, landmarks, locate
from fewbits.assign._rate import SLOPE, Rate
from fewbits.errors import RecipeError
from fewbits.pipeline.rate_control._fill import fill_to_size
from fewbits.plan import Clustered, Plan


def drawn(kind: str, count: int = 20_000) -> Tensor:
    torch.manual_seed(0)
    if kind == "gaussian":
        return torch.randn(count)
    if kind == "laplacian":
        return torch.distributions.Laplace(0.0, 0.5**0.5).sample((count,))
    heavy = torch.distributions.StudentT(4.0).sample((count,))
    return heavy / heavy.std()


def entropy(levels: Tensor) -> float:
    share = torch.unique(levels, return_counts=True)[1].double() / levels.numel()
    return float(-(share * share.log2()).sum())


def result(assigner: Assigner, weight: Tensor, step: float | None = None) -> tuple[float, float]:
    """Entropy, and mean squared error."""
    state = assigner.init({"a": weight})
    if step is not None:
        state = with_steps(state, {"a": step})
    entry = assigner.update({"a": weight}, None, state)[0].clustered["a"]
    return entropy(entry.levels), float((entry.values() - weight).square().mean())


def error_at(rate: float, weight: Tensor, bits: int, fixed: float | None = None, step_rule: str = "range") -> float:
    """The squared error where lambda gives this entropy; infinity where the grid has no such point."""
    low, high = 1e-6, 1e4
    for _ in range(40):
        lam = (low * high) ** 0.5
        found, error = result(ecq(bits, lam, zero_floor=0.5, step_rule=step_rule), weight, fixed)
        low, high = (lam, high) if found > rate else (low, lam)
    return error if abs(found - rate) < 0.02 else float("inf")


@pytest.mark.parametrize("kind", ["gaussian", "laplacian", "t"])
@pytest.mark.parametrize("rate", [0.3, 0.9, 1.3])
def test_no_other_step_has_much_less_error_at_the_same_rate(kind: str, rate: float) -> None:
    weight = drawn(kind)
    own = error_at(rate, weight, 4, step_rule="rate")
    best = min(error_at(rate, weight, 5, float(step)) for step in np.arange(0.8, 3.5, 0.3))
    assert best < float("inf")
    assert own <= 1.05 * best
    assert own <= 0.95 * error_at(rate, weight, 4)  # the paper's grid: levels over the whole range


@pytest.mark.parametrize("make", [ecq, ecqx])
def test_without_lambda_the_steps_are_those_of_the_range(make) -> None:
    weight = {"a": drawn("gaussian", 500), "b": torch.zeros(3), "none": torch.zeros(0)}
    score = {name: w * 0.5 for name, w in weight.items()}
    plans = []
    for step in ("range", "rate"):
        assigner = make(4, 0.0, step_rule=step)
        plans.append(assigner.update(weight, score, assigner.init(weight))[0])
    assert plans[0].equals(plans[1])


@pytest.mark.parametrize("lam", [0.001, 0.05, 0.5, 5.0, 1e9])
def test_the_step_is_the_root_of_lambda_between_its_bounds(lam: float) -> None:
    weight = drawn("laplacian", 3000)
    assigner = ecq(4, lam, zero_floor=0.5, step_rule="rate")
    first = assigner.init({"a": weight})
    plan, state = assigner.update({"a": weight}, None, first)
    wide = min((state["a"].lam / SLOPE) ** 0.5, 2 * float(weight.abs().max()))
    assert plan.clustered["a"].step == pytest.approx(max(first["a"].step, wide), rel=1e-6)
    assert state["a"].step == first["a"].step  # where the next lambda starts from
    if lam == 1e9:
        assert not plan.clustered["a"].levels.any()


def test_lambda_is_that_of_the_paper() -> None:
    """Only the grid changes, not what a bit is worth."""
    weight = {"a": drawn("t", 4000), "b": drawn("gaussian", 300)}
    records = []
    for step in ("range", "rate"):
        assigner = ecq(4, 0.3, zero_floor=0.5, step_rule=step)
        records.append(assigner.update(weight, None, assigner.init(weight))[1])
    for name in weight:
        assert records[0][name].lam == records[1][name].lam


@pytest.mark.parametrize("extreme", [1e-30, 1e37])
def test_steps_stay_within_float32(extreme: float) -> None:
    weight = torch.tensor([[extreme, -extreme, 0.3 * extreme, 0.0]])
    assigner = ecq(8, 1e6, step_rule="rate")
    entry = assigner.update({"a": weight}, None, assigner.init({"a": weight}))[0].clustered["a"]
    assert torch.isfinite(torch.tensor(127.0) * torch.tensor(entry.step, dtype=torch.float32))
    assert torch.isfinite(entry.values()).all()


def test_landmarks_count_the_outermost_cells_and_zero() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        x = torch.from_numpy(rng.normal(rng.normal(), rng.uniform(0.1, 4), rng.integers(1, 60)).astype(np.float32))
        table = np.arange(-7, 8) * rng.uniform(0.05, 1)
        bounds = boundaries(table, np.zeros(15))
        extremes = float(x.min()), float(x.max())
        every, some = count(x, bounds), run_alone(landmarks(x, bounds, extremes))
        assert every.tolist() == count(x, bounds, extremes).tolist()
        assert torch.equal(locate(x, bounds), locate(x, bounds, extremes))
        assert some.sum() == every.sum()
        used = np.flatnonzero(every)
        assert np.flatnonzero(some)[[0, -1]].tolist() == used[[0, -1]].tolist()
        for cell in (used[0], 7, used[-1]):
            assert some[cell] == every[cell]


def test_between_moves_levels_and_not_steps() -> None:
    weight = {"a": torch.tensor([0.2, 1.1, 2.2, -0.9])}
    smaller = Plan({"a": Clustered(torch.tensor([0, 0, 1, 0], dtype=torch.int16), 4, step=2.0)})
    larger = Plan({"a": Clustered(torch.tensor([0, 1, 1, -1], dtype=torch.int16), 4, step=1.9)})
    found = fill_to_size(smaller, larger, weight, lambda plan: int(plan.clustered["a"].levels.count_nonzero()), 2)
    entry = found.clustered["a"]
    assert entry.step == 2.0
    assert entry.levels.tolist() == [0, 1, 1, 0]
    # -0.9 is nearer to 0 than to -2: at this step the move would be a loss, whatever room there is.
    every = fill_to_size(smaller, larger, weight, lambda plan: int(plan.clustered["a"].levels.count_nonzero()), 3)
    assert every.equals(found)
    assert fill_to_size(smaller, smaller, weight, lambda plan: 0, 3) is smaller


def test_impossible_options() -> None:
    with pytest.raises(RecipeError, match="did you mean 'rate'"):
        Rate(0.1, step_rule="rates")
    with pytest.raises(TypeError):
        ternary(step_rule="rate")  # its centroids are trained


def test_what_training_makes_of_a_step_is_a_factor_that_stays() -> None:
    weight = {"a": drawn("laplacian", 3000)}
    strong, weak = (ecq(4, lam, zero_floor=0.5, step_rule="rate") for lam in (0.5, 0.02))
    plan, state = strong.update(weight, None, strong.init(weight))
    trained = with_steps(state, {"a": 1.25 * plan.clustered["a"].step})
    for assigner in (strong, weak, ecq(4, 0.0, step_rule="rate")):
        plain = assigner.update(weight, None, state)[0].clustered["a"].step
        wider, after = assigner.update(weight, None, trained)
        assert wider.clustered["a"].step == pytest.approx(1.25 * plain, rel=1e-6)
        again = with_steps(after, {"a": wider.clustered["a"].step})  # not trained any further
        assert assigner.update(weight, None, again)[0].equals(wider)
    assert trained["a"].step == state["a"].step
    further = with_steps(trained, {"a": 2.5 * plan.clustered["a"].step})  # once more before the next update
    assert further["a"].gain == pytest.approx(2.5, rel=1e-6)
