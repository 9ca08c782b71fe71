"""Budgets against brute force, on invented networks whose sizes and accuracies are known everywhere."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.errors import BudgetError
from fewbits.pipeline.rate_control import SizeSearch, bracket, fill_to_size
from fewbits.pipeline.rate_control.controllers import near
from fewbits.plan import Clustered, Plan

falling = st.lists(st.integers(1, 100_000), min_size=2, max_size=40, unique=True).map(lambda s: sorted(s, reverse=True))


@given(falling, st.floats(1e-6, 1e3), st.floats(0, 1))
def test_a_bracket_holds_the_step_where_the_goal_is_passed(sizes: list[int], guess: float, share: float) -> None:
    """Sizes fall in steps: step k lasts from lambda ``2**k`` to ``2**(k + 1)``, the first from 0."""

    def size_at(lam: float) -> int:
        return sizes[0 if lam < 1 else min(len(sizes) - 1, math.floor(math.log2(lam)))]

    largest = len(sizes) if len(sizes) < 19 else 19  # lambdas end at a million
    goal = sizes[largest - 1] + share * (sizes[0] - sizes[largest - 1])
    low, high = bracket(size_at, goal, guess, tolerance=0.0, tries=200)
    assert size_at(high) <= goal
    if high > 0:
        assert size_at(low) > goal
        # No size between the two is missed: by brute force, the largest that fits.
        assert size_at(high) == max(s for s in sizes if s <= goal)


class Guessed:
    """Sizes that fall with lambda, and estimates that are wrong by a factor, which nearby files tell."""

    def __init__(self, steps: int, wrong: float, tilt: float) -> None:
        self.steps, self.wrong, self.tilt = steps, wrong, tilt
        self.coded: dict[float, float] = {}

    def real(self, lam: float) -> int:
        size = 1000 + 100_000 / (1 + lam) ** 0.7
        return round(size) if not self.steps else math.ceil(size / self.steps) * self.steps

    def __call__(self, lam: float) -> int:
        self.coded[lam] = self.real(lam) / self.raw(lam)
        return self.real(lam)

    def raw(self, lam: float) -> float:
        return self.real(lam) * self.wrong * (1 + lam) ** self.tilt

    def about(self, lam: float) -> int:
        near = min(self.coded, key=lambda coded: abs(self.raw(coded) - self.raw(lam)), default=None)
        return round(self.raw(lam) * (1.0 if near is None else self.coded[near]))


@given(
    goal=st.floats(1200, 120_000), guess=st.floats(1e-4, 1e3), tolerance=st.sampled_from([0.003, 0.02]),
    steps=st.sampled_from([0, 0, 7000]), wrong=st.floats(0.7, 1.4), tilt=st.floats(-0.08, 0.08),
)  # fmt: skip
def test_estimates_lead_to_the_same_sizes_in_few_files(
    goal: float, guess: float, tolerance: float, steps: int, wrong: float, tilt: float
) -> None:
    size_at = Guessed(steps, wrong, tilt)
    try:
        low, high = bracket(size_at, goal, guess, tolerance=tolerance)
    except BudgetError:
        assert size_at.real(1e6) > goal
        return
    assert size_at.real(high) <= goal
    if high > 0:
        assert low < high
        reached = size_at.real(high) >= goal * (1 - tolerance)
        assert reached or size_at.real(high * (1 - 1e-4)) > goal, "sizes jump there"
        if steps == 0 and goal > 2000:
            assert len(size_at.coded) <= 5
    near_end = near(size_at, goal, 2 * goal, guess)
    assert size_at.real(near_end) <= goal * 1.1


def search(floor: float, limit: int | None, size_of, accuracy_of, start: int, tries: int) -> tuple[SizeSearch, list]:
    """Run the search; returns it, and every (size, accuracy) that it saw."""
    found = SizeSearch(floor, limit, tries=tries, close=1.01)
    seen = [(start, accuracy_of(start))]
    found.tell(*seen[0])
    while (goal := found.next()) is not None:
        size = size_of(goal)
        seen.append((size, accuracy_of(size)))
        found.tell(*seen[-1], goal)
    return found, seen


@given(knee=st.floats(100, 50_000), start=st.integers(100, 60_000), step=st.sampled_from([1, 7, 50]), tries=st.just(60))
def test_the_smallest_size_that_keeps_the_floor_is_found(knee: float, start: int, step: int, tries: int) -> None:
    """Accuracy rises with size and passes the floor at the knee; sizes come in steps."""

    def size_of(goal: float) -> int:
        return max(step, int(goal) // step * step)

    def accuracy_of(size: float) -> float:
        return 90.0 + 5 * math.tanh(math.log(size / knee))

    found, seen = search(90.0, None, size_of, accuracy_of, start, tries)
    smallest = next(s for s in range(step, 100_000, step) if accuracy_of(s) >= 90.0)  # brute force
    assert found.kept is not None
    assert accuracy_of(found.kept) >= 90.0
    assert found.kept <= max(start if start >= knee else 0, math.ceil(1.01 * smallest) + 2 * step)
    assert found.kept <= 1.02 * smallest + 2 * step or found.kept == start
    assert len(seen) <= tries + 1


@given(
    st.integers(0, 2**31), st.integers(500, 60_000), st.one_of(st.none(), st.integers(500, 60_000)), st.integers(0, 12)
)
def test_with_noise_the_promise_is_about_what_was_measured(
    seed: int, start: int, limit: int | None, tries: int
) -> None:
    noise = torch.Generator().manual_seed(seed)
    values: dict[int, float] = {}

    def accuracy_of(size: int) -> float:
        if size not in values:
            values[size] = 90 + 4 * math.tanh(math.log(size / 5000)) + float(torch.randn(1, generator=noise))
        return values[size]

    found, seen = search(90.0, limit, int, accuracy_of, start, tries)
    assert len(seen) <= tries + 1
    kept = [size for size, accuracy in seen if accuracy >= 90.0 and (limit is None or size <= limit)]
    assert found.kept == (min(kept) if kept else None), "what was seen and keeps the budget is never given up"
    if limit is not None and tries > 0:
        assert any(size <= limit for size, _ in seen), "something within the limit was looked at"


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_single_weights_reach_a_size_between_two_plans(seed: int, share: float) -> None:
    """Every weight that is not zero costs a byte: the goal is met exactly, and by the moves that gain most."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(n, generator=generator) for name, n in (("a", 9), ("b", 14))}
    larger = Plan({n: Clustered((w * 4).round().to(torch.int16), 5, step=0.25) for n, w in weights.items()})
    zeros = {n: torch.where(w.abs() < 0.8, 0, larger.clustered[n].levels).to(torch.int16) for n, w in weights.items()}
    smaller = Plan({n: Clustered(z, 5, step=0.25) for n, z in zeros.items()})

    def size_of(plan: Plan) -> int:
        return 100 + sum(int((e.levels != 0).sum()) for e in plan.clustered.values())

    low, high = size_of(smaller), size_of(larger)
    goal = low + round(share * (high - low))
    found = fill_to_size(smaller, larger, weights, size_of, goal, tolerance=0.0)
    assert size_of(found) == goal

    def error(plan: Plan) -> float:
        return sum(float((w - plan[n].values()).square().sum()) for n, w in weights.items())

    gains = []  # of each weight that may move, by brute force
    for name, weight in weights.items():
        for i, w in enumerate(weight.tolist()):
            here, there = smaller[name].values()[i].item(), larger[name].values()[i].item()
            if here != there:
                gains.append((w - here) ** 2 - (w - there) ** 2)
    best = error(smaller) - sum(sorted(gains, reverse=True)[: goal - low])
    assert math.isclose(error(found), best, rel_tol=1e-5, abs_tol=1e-6)


def test_two_equal_plans_have_nothing_between_them() -> None:
    plan = Plan({"a": Clustered(torch.ones(3, dtype=torch.int16), 3, step=1.0)})
    assert fill_to_size(plan, plan, {"a": torch.ones(3)}, lambda p: 5, 10) is plan


def test_a_move_that_makes_the_error_larger_is_not_made_however_many_bytes_are_left() -> None:
    """At the smaller plan's step a level of the larger one may lie further off."""
    weights = {"a": torch.tensor([1.0, 0.9])}
    smaller = Plan({"a": Clustered(torch.tensor([1, 0], dtype=torch.int16), 3, step=1.0)})
    larger = Plan({"a": Clustered(torch.tensor([2, 1], dtype=torch.int16), 3, step=0.5)})
    found = fill_to_size(smaller, larger, weights, lambda plan: 1, 1000)
    assert found.clustered["a"].levels.tolist() == [1, 1]
