"""From bytes and points to lambda, on size curves that are known exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import BudgetError
from fewbits.pipeline.rate_control import Fixed, MaxDrop, SizeSearch, TargetSize, solve


def curve(lam: float) -> int:
    """Bytes that fall from 10,000 to 500."""
    return 500 + int(9500 / (1 + lam * 7))


@given(st.floats(600, 9900), st.floats(1e-6, 100))
def test_solve_is_below_the_goal_and_close(goal: float, guess: float) -> None:
    size = curve(solve(curve, goal, guess, tolerance=0.01))
    assert size <= goal
    assert size >= 0.985 * goal


def test_solve_needs_no_lambda_when_the_file_is_small_enough() -> None:
    assert solve(curve, 10_000, 1.0) == 0.0


def test_solve_on_a_staircase_stays_below() -> None:
    def stairs(lam: float) -> int:
        return 1000 if lam < 0.31 else 200

    assert solve(stairs, 900, 5.0) == pytest.approx(0.31, rel=1e-3)


def test_the_impossible_is_explained() -> None:
    with pytest.raises(BudgetError, match="500 bytes"):
        solve(curve, 400, 0.1)


def test_toward_size_falls_geometrically_and_stays() -> None:
    controller = TargetSize(1000, arrive=0.5)
    sizes = [10_000]
    for share in (0.0, 0.25, 0.5, 0.75):
        sizes.append(curve(controller.next(share, sizes[-1], None, curve)))
    assert sizes[1] == 10_000
    assert sizes[2] == pytest.approx((10_000 * 1000) ** 0.5, rel=0.03)
    assert 970 <= sizes[3] <= 1000
    assert 970 <= sizes[4] <= 1000
    assert 990 <= curve(controller.final(curve)) <= 997


def test_toward_size_refuses_when_asked_first_for_a_later_share() -> None:
    with pytest.raises(BudgetError, match="500 bytes"):
        TargetSize(400).next(0.25, 10_000, None, curve)


def test_within_drop_ends_near_the_smallest_size_that_keeps_the_floor() -> None:
    """Accuracy is lost below 2,000 bytes; twenty rounds get within 15 % of that."""
    controller = MaxDrop(min_accuracy=90.0)
    size, best = 10_000, 10_000
    for step in range(20):
        accurate = 95.0 if size >= 2000 else 80.0
        if accurate >= 90:
            best = min(best, size)
        size = curve(controller.next(step / 20, size, accurate, curve))
    assert 2000 <= best <= 2300
    assert curve(controller.final(curve)) <= best


@pytest.mark.parametrize("controller", [TargetSize(450), MaxDrop(min_accuracy=90.0, target=450)])
def test_a_target_below_every_file_is_refused_before_the_first_step(controller: TargetSize | MaxDrop) -> None:
    with pytest.raises(BudgetError, match="450 bytes cannot be reached: at its smallest the file still has 500 bytes"):
        controller.next(0.0, 10_000, 95.0, curve)


def test_within_drop_goes_as_far_as_it_can_where_any_accuracy_will_do() -> None:
    """Its own goals fall below the smallest file; nobody asked for those."""
    controller = MaxDrop(min_accuracy=0.0)
    size = 10_000
    for step in range(30):
        size = curve(controller.next(step / 30, size, 50.0, curve))
    assert size == 500
    assert curve(controller.final(curve)) == 500


def test_fixed_is_fixed() -> None:
    assert Fixed(0.2).next(0.5, 1, None, curve) == Fixed(0.2).final(curve) == 0.2


def test_a_target_may_be_reached_at_once_or_late() -> None:
    assert TargetSize(1000, arrive=0.0).goal(0.0, 8000) == 1000
    late = TargetSize(1000, arrive=0.75)
    assert late.goal(0.0, 8000) == 8000
    assert late.goal(0.5, 8000) == pytest.approx(2000)
    assert late.goal(0.75, 8000) == late.goal(1.0, 8000) == 1000


@pytest.mark.parametrize(("share", "held"), [(0.5, True), (0.74, True), (0.75, False), (0.9, False)])
def test_a_first_loss_of_accuracy_is_waited_out_only_while_there_is_time(share: float, held: bool) -> None:
    controller = MaxDrop(min_accuracy=90.0)
    controller.see(4000, 95.0)
    size = curve(controller.next(share, 2000, 80.0, curve))
    assert size == pytest.approx(2000 if held else (2000 * 4000) ** 0.5, rel=0.03)


def test_solve_stops_where_it_is_close_enough() -> None:
    """Each question costs an encoding."""

    def asked(tolerance: float) -> int:
        seen: list[float] = []
        solve(lambda lam: seen.append(lam) or curve(lam), 5000, 1.0, tolerance=tolerance)
        return len(seen)

    assert asked(0.2) < asked(0.02) < asked(0.0)


def test_the_last_assignment_keeps_a_target_although_a_larger_file_was_accurate() -> None:
    controller = MaxDrop(min_accuracy=90.0, target=1000)
    controller.see(2000, 95.0)
    assert 980 <= curve(controller.final(curve)) <= 997


def test_after_two_losses_the_steps_are_smaller() -> None:
    controller = MaxDrop(min_accuracy=90.0)
    first = curve(controller.next(0.0, 4000, 95.0, curve)) / 4000
    for share in (0.1, 0.2):
        controller.next(share, 2000, 80.0, curve)
    later = curve(controller.next(0.3, 4000, 95.0, curve)) / 4000
    assert first == pytest.approx(0.75, rel=0.03)
    assert later == pytest.approx(0.75 ** (1.25 * 0.6), rel=0.03)  # one step was kept, then the way back


def test_a_size_that_failed_by_chance_does_not_end_the_search() -> None:
    """A smaller file was accurate enough: what is known of the larger one no longer bounds anything."""
    found = SizeSearch(90.0)
    found.tell(1000, 80.0, goal=1000)
    found.tell(900, 95.0, goal=900)
    assert found.next() == pytest.approx(900 * 0.85)
