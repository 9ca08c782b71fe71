"""Bits that a recipe leaves open."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fewbits as fb
from fewbits import recipe as recipes
from fewbits.data import DataSet
from fewbits.errors import BudgetError, RecipeError
from fewbits.pipeline import check
from fewbits.pipeline._pilot import BITS, Outcome, PilotChoice, choose, share_of
from fewbits.pipeline.stages._hold import HeldTraining
from fewbits.pipeline.stages._pilots import Pilots
from fewbits.report.report import Report
from fewbits.task import accuracy


def recipe(bits: object = "auto", **more: object) -> recipes.Recipe:
    options = {"zero_floor": 0.5}
    train = {"epochs": 2, "lr": 5e-3}
    return recipes.make(
        {"assign": {"method": "ecq", "bits": bits, "options": options}, "train": train, "rounds": 4} | more
    )


@pytest.mark.parametrize(
    ("outcomes", "best"),
    [
        ({2: (880, 70.0), 3: (890, 80.0), 4: (899, 80.0), 5: (899, 75.0)}, 3),
        ({2: "too large", 3: "too large", 4: (899, 10.0), 5: "too large"}, 4),
    ],
)
def test_the_bits_of_the_most_accurate_file(outcomes: dict, best: int) -> None:
    seen = []

    def short(trial: recipes.Recipe, what: str, index: int, count: int) -> Outcome:
        assert (BITS[index], count) == (trial.assign.bits, 4)
        assert trial.train.epochs == pytest.approx(0.5)
        assert trial.target == 900
        seen.append(trial.assign.bits)
        return outcomes[trial.assign.bits]

    found = choose(recipe(target=900), short, 99.0, 10_000, 4000)
    assert (found.bits, found.size) == (best, None)
    assert seen == list(BITS)
    assert [r.bits for r in found.seen] == [b for b in BITS if not isinstance(outcomes[b], str)]


def test_the_length_of_a_pilot_run() -> None:
    assert [share_of(steps) for steps in (1, 499, 500, 1000, 1999, 2000, 100_000)] == [
        1, 1, 1, 0.5, pytest.approx(0.25, abs=1e-3), 0.25, 0.25,
    ]  # fmt: skip


def test_no_bits_reach_the_target() -> None:
    with pytest.raises(BudgetError, match="too large"):
        choose(recipe(target=10), lambda *_: "too large", None, 10_000, 4000)


def told_sizes(
    asked: recipes.Recipe, accuracy_at, smallest: float = 0.0
) -> tuple[PilotChoice, list[tuple[object, int]]]:
    """Pilot runs where a network's accuracy is ``accuracy_at(bits, bytes)``; the float one has 99 % in 32,000 bytes."""
    seen = []

    def short(trial: recipes.Recipe, what: str, index: int, count: int) -> Outcome:
        assert (index, trial.max_drop) == (len(seen), None)
        assert isinstance(trial.target, int)
        seen.append((trial.assign.bits, trial.target))
        return "too small" if trial.target < smallest else (trial.target, accuracy_at(trial.assign.bits, trial.target))

    return choose(asked, short, 99.0, 32_000, 4000), seen


def test_sizes_halve_until_the_floor_is_lost_and_close_in_then() -> None:
    found, seen = told_sizes(recipe(3, max_drop=1.0), lambda bits, size: 99.0 if size >= 210 else 97.9)
    assert [target for _, target in seen] == [1000, 500, 250, 125, 177, 210]
    assert (found.bits, found.size) == (None, 210)
    assert [r.kept for r in found.seen] == [True, True, True, False, False, True]
    assert {r.bits for r in found.seen} == {3}
    found, seen = told_sizes(recipe(3, max_drop=1.0), lambda bits, size: 99.0 if size >= 3000 else 97.0)
    assert [target for _, target in seen][:4] == [1000, 2000, 4000, 2828]
    assert found.size is not None
    assert 3000 <= found.size <= 4000
    found, seen = told_sizes(recipe(3, max_drop=1.0), lambda bits, size: 0.0)
    assert (found.size, len(seen)) == (None, 6)
    found, seen = told_sizes(recipe(3, max_drop=1.0), lambda bits, size: 99.0, smallest=400)
    assert found.size is not None
    assert 400 <= found.size <= 440


def test_a_target_bounds_the_sizes() -> None:
    found, seen = told_sizes(recipe(3, max_drop=1.0, target=600), lambda bits, size: 99.0 if size >= 500 else 0.0)
    assert max(target for _, target in seen) == seen[0][1] == 600
    assert found.size is not None
    assert 500 <= found.size <= 600


def test_bits_and_size_together() -> None:
    """Two bits are best for the small files, four for the large ones; the rest are never among the best two."""
    best = {2: 300, 3: 5000, 4: 900, 5: 5000}
    found, seen = told_sizes(recipe(max_drop=1.0), lambda bits, size: 99.5 - best[bits] / size)
    assert [bits for bits, target in seen if target == 1000] == [2, 3, 4, 5]
    assert {bits for bits, target in seen if target != 1000} == {2, 4}
    assert found.bits == 2
    assert found.size is not None
    assert 200 <= found.size <= 220  # 99.5 - 300 / size >= 98
    second = {2: (98.2, 96.0), 3: (0.0, 0.0), 4: (98.1, 99.0), 5: (0.0, 0.0)}  # at the first size, and below it
    found, seen = told_sizes(recipe(max_drop=1.0), lambda bits, size: second[bits][size < 1000])
    assert seen[4:] == [(2, 500), (4, 500), (4, 250), (4, 125), (4, 62), (4, 31)]
    assert found.bits == 4


def test_no_bits_are_given_up_before_some_kept_the_floor() -> None:
    """Few bits are best at the first size, and can never keep the floor: their files end at so many bits per weight."""
    most = {2: (2000, 86.0), 3: (3000, 88.0), 4: (4000, 98.5), 5: (5000, 98.8)}

    def short(trial: recipes.Recipe, what: str, index: int, count: int) -> Outcome:
        assert isinstance(trial.assign.bits, int)
        assert isinstance(trial.target, int)
        seen.append((trial.assign.bits, trial.target))
        largest, accuracy = most[trial.assign.bits]
        size = min(trial.target, largest)
        return size, accuracy - 3 * trial.assign.bits * (largest / size - 1)

    seen: list[tuple[int, int]] = []
    found = choose(recipe(max_drop=1.0), short, 99.0, 32_000, 4000)
    assert found.bits in (4, 5)
    assert found.size is not None
    assert seen.count((2, 4000)) <= 1  # its file is as large as it gets
    assert (2, 8000) not in seen


def test_a_file_that_cannot_grow_ends_the_search() -> None:
    asked = []

    def short(trial: recipes.Recipe, what: str, index: int, count: int) -> Outcome:
        assert isinstance(trial.target, int)
        asked.append(trial.target)
        return min(trial.target, 1500), 50.0

    assert choose(recipe(2, max_drop=1.0), short, 99.0, 32_000, 4000).size is None
    assert asked == [1000, 2000]


def test_the_largest_size_allowed_is_tried() -> None:
    found, seen = told_sizes(recipe(3, max_drop=1.0, target=1080), lambda bits, size: 99.0 if size >= 1050 else 0.0)
    assert [target for _, target in seen][:2] == [1000, 1080]
    assert found.size == 1080


@settings(max_examples=60)
@given(st.integers(100, 20_000), st.integers(1, 9), st.none() | st.integers(100, 40_000), st.floats(0, 1.5))
def test_what_is_chosen_was_seen_to_keep_the_floor(needed: int, tries: int, limit: int | None, noise: float) -> None:
    draw = random.Random(needed)

    def measured(bits: int, size: int) -> float:
        return (99.0 if size >= needed else 97.5) + draw.uniform(-noise, noise)

    budget = {"max_drop": 1.0, "pilots": tries} | ({} if limit is None else {"target": limit})
    found, seen = told_sizes(recipe(3, **budget), measured)
    assert 1 <= len(seen) <= tries
    assert limit is None or all(target <= limit for _, target in seen)
    kept = [r.bytes for r in found.seen if r.accuracy >= 98.0]
    assert found.size == min(kept, default=None)


@pytest.mark.long
def test_a_run_is_that_of_the_chosen_bits(trained: nn.Module, handwriting: DataSet, tmp_path) -> None:
    """Pilot runs leave no trace in the training, interrupted or not."""

    def evaluate(model: nn.Module) -> float:
        return accuracy(model, handwriting.loader("validation", 256))

    def run(asked: recipes.Recipe, **more: object) -> fb.Compressed:
        return fb.compress(
            trained, handwriting.loader("train", 64, shuffle=True, seed=3), evaluate=evaluate, recipe=asked, **more
        )

    told: list[str] = []
    found = run(recipe(target=1500), progress=lambda done, total, line: told.append(line))
    bits = {entry.bits for entry in found.plan.clustered.values()}
    assert len(bits) == 1
    best = max(found.report.pilots, key=lambda r: (r.accuracy, -r.bits))
    assert bits == {best.bits}
    assert found.data == run(recipe(best.bits, target=1500)).data
    assert any("pilot run with 3 bits" in line for line in told)
    assert f"{best.bits}, after short trainings with" in str(found.report)
    assert Report.from_json(found.report.to_json()).pilots == found.report.pilots

    state = tmp_path / "run.state"
    rounds = iter(range(100))

    def stop(done: int, total: int, line: str) -> None:
        if "pilot run" not in line and next(rounds) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe(target=1500), progress=stop, state_file=state)
    again: list[str] = []
    resumed = run(recipe(target=1500), progress=lambda *line: again.append(line[2]), state_file=state)
    assert not any("pilot run" in line for line in again)
    assert resumed.data == found.data
    assert resumed.report.pilots == found.report.pilots


def test_what_cannot_be_chosen(trained: nn.Module, handwriting: DataSet) -> None:
    batches = handwriting.loader("train", 64)
    with pytest.raises(RecipeError, match="needs a budget"):
        fb.compress(trained, batches, evaluate=lambda net: 0.0, recipe=recipe())
    with pytest.raises(RecipeError, match="needs evaluate"):
        fb.compress(trained, batches, recipe=recipe(target=1500))
    with pytest.raises(RecipeError, match="needs pilots"):
        fb.compress(trained, batches, evaluate=lambda net: 0.0, recipe=recipe(max_drop=1.0, pilots=0))
    with pytest.raises(RecipeError, match="ternary has no bits to choose"):
        check(recipes.make({"assign": {"method": "ternary", "bits": "auto"}}))
    for wrong in (1, 17, "automatic", True, 3.5):
        with pytest.raises(RecipeError, match=r"assign\.bits: a number from 2 to 16, or auto"):
            recipe(wrong)


def test_the_smallest_size_that_kept_the_floor_is_trained_to(
    trained: nn.Module, handwriting: DataSet, tmp_path
) -> None:
    """An interruption in the pilots costs one of them; the file is the one without an interruption."""

    def evaluate(model: nn.Module) -> float:
        return accuracy(model, handwriting.loader("validation", 256))

    def run(**more: object) -> fb.Compressed:
        asked = recipe(3, max_drop=12.0, pilots=3)
        batches = handwriting.loader("train", 64, shuffle=True, seed=3)
        return fb.compress(trained, batches, evaluate=evaluate, recipe=asked, **more)

    found = run()
    report = found.report
    assert report.met
    assert len(report.pilots) == 3
    smallest = min(r.bytes for r in report.pilots if r.kept)
    assert 0.9 * smallest <= min(r.bytes for r in report.history) <= smallest
    assert "in short trainings" in str(report)
    assert Report.from_json(report.to_json()).pilots == report.pilots

    state = tmp_path / "run.state"
    seen: list[str] = []

    def stop(done: int, total: int, line: str) -> None:
        seen.append(line)
        if len(piloted(seen)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop, state_file=state)
    assert list(tmp_path.iterdir()) == [state]
    again: list[str] = []
    resumed = run(progress=lambda *line: again.append(line[2]), state_file=state)
    assert len(piloted(again)) == 2
    assert resumed.data == found.data
    assert not list(tmp_path.iterdir())


def piloted(lines: list[str]) -> set[str]:
    return {line.split(":")[0] for line in lines if line.startswith("pilot run")}


@pytest.mark.parametrize(
    ("outcomes", "written"),
    [
        ([(1000, True)], 1000),
        ([(4000, True), (1150, True)], 1150),  # first only an early candidate kept it
        ([(1000, False), (1200, False), (1440, True)], 1440),
        ([(1000, False), (9000, True), (9500, True)], 9000),
        ([(1000, False), (1200, False), (1440, False)], 1440),
    ],
)
def test_a_drop_that_was_not_kept_is_tried_again_a_fifth_larger(
    trained: nn.Module, handwriting: DataSet, monkeypatch: pytest.MonkeyPatch, outcomes: list, written: int
) -> None:
    real = fb.compress(trained, handwriting.loader("train", 64), recipe=recipe(3, train={"epochs": 0.1}), target=9000)
    goals: list[int | None] = []

    def train(self: HeldTraining, saved: object) -> fb.Compressed:
        goals.append(self.work.choice.size)
        size, met = outcomes[len(goals) - 1]
        return replace(real, report=real.report.updated(file_bytes=size, met=met, accuracy_after=size / 100))

    chosen = PilotChoice(None, 1000)
    monkeypatch.setattr(Pilots, "run", lambda self, work, context: replace(work, before=90.0, choice=chosen))
    monkeypatch.setattr(HeldTraining, "go", train)
    batches = handwriting.loader("train", 64)
    found = fb.compress(trained, batches, evaluate=lambda net: 90.0, recipe=recipe(3, max_drop=1.0))
    assert goals == [1000, 1200, 1440][: len(outcomes)]
    assert found.report.file_bytes == written


def test_no_attempt_is_larger_than_the_target() -> None:
    goals = [
        PilotChoice(3, 1000).larger(None),
        PilotChoice(3, 1000).larger(1100),
        PilotChoice(3, 1000).larger(1000),
        PilotChoice().larger(9),
    ]
    assert [None if g is None else (g.size, g.attempt) for g in goals] == [(1200, 2), (1100, 2), None, None]
    assert PilotChoice(3, 1000, attempt=3).larger(None) is None


def test_an_interruption_of_a_second_attempt_does_not_forget_the_first(
    trained: nn.Module, handwriting: DataSet, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    def evaluate(model: nn.Module) -> float:  # no file keeps the drop; the smallest, of the first attempt, is best
        weights = torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.dim() > 1])
        zeros = float((weights == 0).float().mean())
        return 99.0 if zeros == 0 else 50 * zeros

    def run(**more: object) -> fb.Compressed:
        asked = recipe(3, max_drop=1.0, tries=0, train={"epochs": 1, "lr": 5e-3, "arrive": 0.0})
        batches = handwriting.loader("train", 64, shuffle=True, seed=3)
        return fb.compress(trained, batches, evaluate=evaluate, recipe=asked, **more)

    chosen = PilotChoice(None, 700)
    monkeypatch.setattr(Pilots, "run", lambda self, work, context: replace(work, before=99.0, choice=chosen))
    whole = run()
    assert whole.report.met is False
    assert len(whole.data) <= 700  # not one of the later, larger ones
    state, told = tmp_path / "run.state", iter(range(100))

    def stop(done: int, total: int, line: str) -> None:
        if next(told) == 5:  # of four rounds each
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop, state_file=state)
    resumed = run(state_file=state)
    assert resumed.data == whole.data
    assert resumed.report.accuracy_after == whole.report.accuracy_after
    assert not list(tmp_path.iterdir())


def test_an_accuracy_may_be_a_number_of_numpy(trained: nn.Module, handwriting: DataSet, tmp_path) -> None:
    """As ``100 * (found == wanted).mean()`` is."""

    def run(**more: object) -> fb.Compressed:
        asked = recipe(3, max_drop=12.0, pilots=2)
        batches = handwriting.loader("train", 64, shuffle=True, seed=3)
        percent = lambda net: np.float32(accuracy(net, handwriting.loader("validation", 256)))  # noqa: E731
        return fb.compress(trained, batches, evaluate=percent, recipe=asked, state_file=tmp_path / "state", **more)

    def stop(done: int, total: int, line: str) -> None:
        if "pilot run" not in line and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    report = run().report
    assert type(report.accuracy_after) is float
    assert Report.from_json(report.to_json()) == report
