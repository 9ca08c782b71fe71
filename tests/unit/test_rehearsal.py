"""Bits that a recipe leaves open."""

from __future__ import annotations

import pytest
from torch import nn

import fewbits as fb
from fewbits import recipe as recipes
from fewbits.data import DataSet
from fewbits.errors import BudgetError, RecipeError
from fewbits.pipeline.rehearsal import BITS, rehearse
from fewbits.report.report import Report
from fewbits.train import accuracy


def recipe(bits: object = "auto", **more: object) -> recipes.Recipe:
    options = {"zero_floor": 0.5}
    train = {"epochs": 2, "lr": 5e-3}
    return recipes.make(
        {"assign": {"method": "ecq", "bits": bits, "options": options}, "train": train, "rounds": 4} | more
    )


class Told(Report):
    """A report of which only these figures count."""

    def __init__(self, size: int, percent: float, met: bool | None) -> None:
        for name, value in {"file_bytes": size, "accuracy_after": percent, "met": met}.items():
            object.__setattr__(self, name, value)


@pytest.mark.parametrize(
    ("budget", "outcomes", "best"),
    [
        ({"target": 900}, {2: (880, 70.0), 3: (890, 80.0), 4: (899, 80.0), 5: (899, 75.0)}, 3),
        ({"target": 900}, {2: None, 3: None, 4: (899, 10.0), 5: None}, 4),
        ({"max_drop": 1.0}, {2: (100, 90.0), 3: (300, 99.0), 4: (200, 99.5), 5: (250, 99.2)}, 4),
        ({"max_drop": 1.0}, {2: (100, 90.0), 3: (300, 95.0), 4: (200, 94.0), 5: None}, 3),
    ],
)
def test_the_most_accurate_or_the_smallest(budget: dict, outcomes: dict, best: int) -> None:
    seen = []

    def short(trial: recipes.Recipe, index: int) -> Report:
        assert BITS[index] == trial.assign.bits
        assert trial.train.epochs == pytest.approx(0.5)
        assert trial.target == budget.get("target")
        seen.append(trial.assign.bits)
        found = outcomes[trial.assign.bits]
        if found is None:
            raise BudgetError("too large")
        return Told(*found, met=found[1] >= 98 if "max_drop" in budget else True)

    bits, told = rehearse(recipe(**budget), short)
    assert bits == best
    assert seen == list(BITS)
    assert [r.bits for r in told] == [b for b in BITS if outcomes[b] is not None]


def test_no_bits_reach_the_target() -> None:
    def short(trial: recipes.Recipe, index: int) -> Report:
        raise BudgetError("too large")

    with pytest.raises(BudgetError, match="too large"):
        rehearse(recipe(target=10), short)


def test_a_run_is_that_of_the_chosen_bits(trained: nn.Module, handwriting: DataSet, tmp_path) -> None:
    """Rehearsals leave no trace in the training, interrupted or not."""

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
    best = max(found.report.rehearsals, key=lambda r: (r.accuracy, -r.bits))
    assert bits == {best.bits}
    assert found.data == run(recipe(best.bits, target=1500)).data
    assert any("rehearsing with 3 bits" in line for line in told)
    assert f"{best.bits}, after short trainings with" in str(found.report)
    assert Report.from_json(found.report.to_json()).rehearsals == found.report.rehearsals

    state = tmp_path / "run.state"
    rounds = iter(range(100))

    def stop(done: int, total: int, line: str) -> None:
        if "rehearsing" not in line and next(rounds) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe(target=1500), progress=stop, state_file=state)
    again: list[str] = []
    resumed = run(recipe(target=1500), progress=lambda *line: again.append(line[2]), state_file=state)
    assert not any("rehearsing" in line for line in again)
    assert resumed.data == found.data
    assert resumed.report.rehearsals == found.report.rehearsals


def test_what_cannot_be_chosen(trained: nn.Module, handwriting: DataSet) -> None:
    batches = handwriting.loader("train", 64)
    with pytest.raises(RecipeError, match="needs a budget"):
        fb.compress(trained, batches, evaluate=lambda net: 0.0, recipe=recipe())
    with pytest.raises(RecipeError, match="needs evaluate"):
        fb.compress(trained, batches, recipe=recipe(target=1500))
    with pytest.raises(RecipeError, match="ternary has no bits to choose"):
        recipes.make({"assign": {"method": "ternary", "bits": "auto"}})
    for wrong in (1, 17, "automatic", True, 3.5):
        with pytest.raises(RecipeError, match=r"assign\.bits: a number from 2 to 16, or auto"):
            recipe(wrong)
