"""Settings, fronts and the shared queue, without training anything."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import DataError, MissingExtraError, RecipeError
from fewbits.recipe.variation import Sweep
from fewbits.search.sweep import SweepSpace, front, points
from fewbits.search.sweep import _owner as owner
from fewbits.search.sweep.queue import ATTEMPTS, Queue
from fewbits.search.sweep.storage import opened

OVER = {
    "assign.bits": [2, 3, 4],
    "assign.lam": {"from": 0.1, "to": 3, "log": True},
    "rounds": {"from": 3, "to": 9},
    "train.epochs": {"from": 1, "to": 2, "step": 0.25},
    "target": {"from": "1 KB", "to": "9 KB", "log": True},
    "prune": [None, {"sparsity": 0.5}],
    "train.learn": [False, True],
}


def section(**changes: Any) -> Sweep:
    return Sweep.model_validate({"over": OVER, "trials": 20, "batch": 5} | changes)


# -- settings --------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=len(OVER), max_size=len(OVER)))
def test_every_point_is_a_setting_that_optuna_takes_and_a_recipe_gets(place: list[float]) -> None:
    space = SweepSpace.of(section())
    params = space.at(place)
    assert list(params) == list(OVER)
    for name, distribution in space.distributions().items():
        assert distribution._contains(distribution.to_internal_repr(params[name])), name
    changes = space.changes(params)
    assert changes["assign.bits"] in (2, 3, 4)
    assert 0.1 <= changes["assign.lam"] <= 3
    assert changes["rounds"] in range(3, 10)
    assert changes["train.epochs"] in (1, 1.25, 1.5, 1.75, 2)
    assert isinstance(changes["target"], int)
    assert 1000 <= changes["target"] <= 9000
    assert changes["prune"] in (None, {"sparsity": 0.5})
    assert json.loads(json.dumps(params)) == params


def test_ends_of_ranges_are_reached_and_logarithms_are_even() -> None:
    space = SweepSpace.of(section())
    n = len(OVER)
    assert space.at([0.0] * n)["rounds"] == 3
    assert space.at([1 - 1e-12] * n)["rounds"] == 9
    assert space.at([1 - 1e-12] * n)["train.epochs"] == 2
    assert space.at([0.5] * n)["assign.lam"] == pytest.approx(math.sqrt(0.3))
    assert space.size is None
    small = SweepSpace.of(
        section(over={"a": [1, 2], "b": {"from": 2, "to": 4}, "c": {"from": 0, "to": 1, "step": 0.3}})
    )
    assert small.size == 2 * 3 * 4


def test_equal_values_of_different_kinds_are_told_apart() -> None:
    space = SweepSpace.of(section(over={"a": [1, True, 0, False]}))
    assert [type(space.changes({"a": v})["a"]) for v in (1, True, 0, False)] == [int, bool, int, bool]


@pytest.mark.parametrize("sampler", ["sobol", "random", "tpe"])
def test_settings_depend_on_the_seed_alone(sampler: str) -> None:
    space = SweepSpace.of(section())
    seen = [(p, (90.0 + i, 1000.0 * i)) for i, p in enumerate(points.planned(space, section(sampler=sampler), []))]
    first, again = (points.planned(space, section(sampler=sampler), seen) for _ in range(2))
    assert first == again
    assert points.planned(space, section(sampler=sampler, seed=1), seen) != first
    assert len({points.key(p) for p in first}) == len(first)
    longer = points.planned(space, section(sampler=sampler, trials=30), seen)
    assert longer[: len(first)] == first, "more trials go on with the same list"


def test_tpe_plans_a_batch_ahead_and_learns_from_what_was_seen() -> None:
    space, wanted = SweepSpace.of(section()), section()
    first = points.planned(space, wanted, [])
    assert len(first) == 5
    small = [(p, (90.0, 100.0 if p["assign.bits"] == 2 else 9000.0)) for p in first]
    large = [(p, (90.0, 100.0 if p["assign.bits"] == 4 else 9000.0)) for p in first]
    assert len(points.planned(space, wanted, small[:4])) == 5, "a batch waits for all before it"
    assert points.planned(space, wanted, small) != points.planned(space, wanted, large)
    assert len(points.planned(space, wanted, [(p, None) for p in first])) == 10, "failures do not stop it"


@pytest.mark.parametrize("sampler", ["sobol", "random", "tpe"])
def test_an_exhausted_space_ends_the_list(sampler: str) -> None:
    wanted = section(over={"a": [1, 2, 3], "b": [False, True]}, sampler=sampler)
    found = points.planned(SweepSpace.of(wanted), wanted, [])
    while len(more := points.planned(SweepSpace.of(wanted), wanted, [(p, (1.0, 2.0)) for p in found])) > len(found):
        found = more
    assert sorted((p["a"], p["b"]) for p in found) == [(a, b) for a in (1, 2, 3) for b in (False, True)]


# -- the front -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=14))
def test_the_front_is_optunas(values: list[tuple[int, int, int]]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for row in values:
        study.add_trial(optuna.create_trial(values=list(map(float, row))))
    best = {trial.number for trial in study.best_trials}
    assert {i for i, on in enumerate(front(values, [True, False, False])) if on} == best


# -- the queue -------------------------------------------------------------------------------------------


def queue(folder: Path, patience: float = 300.0, **changes: Any) -> Queue:
    wanted = {"over": {"assign.bits": {"from": 2, "to": 9}}, "trials": 6, "batch": 3} | changes
    return Queue(opened(None, folder), "s", section(**wanted), {"recipe": "r"}, pulse=owner.Pulse(patience))


def value(trial: Any) -> list[float]:
    return [90.0 + trial.params["assign.bits"], 100.0 * trial.params["assign.bits"]]


def test_two_processes_share_the_trials_and_nothing_is_done_twice(tmp_path: Path) -> None:
    first, second = queue(tmp_path), queue(tmp_path)
    seen = []
    while not (first.plan() and second.plan()):
        taken = [t for q in (first, second) if (t := q.take()) is not None]
        for q, trial in zip((first, second), taken, strict=False):
            seen.append(trial.params["assign.bits"])
            q.complete(trial, value(trial), {"n": trial.number})
    assert len(seen) == len(set(seen)) == 6
    done = queue(tmp_path).finished()
    assert sorted(done) == list(range(6))
    alone = [
        p["assign.bits"]
        for p in points.planned(first.space, first.sweep, [(t.params, t.values) for _, t in sorted(done.items())])
    ]
    assert [done[i].params["assign.bits"] for i in range(6)] == alone, "the same settings as of one process"


def test_a_dead_process_gives_its_trial_back_and_what_was_finished_stays(tmp_path: Path, monkeypatch: Any) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    theirs = owner.me() | {"pid": child.pid, "born": owner._born(child.pid)}
    monkeypatch.setattr(owner, "me", lambda: theirs)
    dying = queue(tmp_path)
    dying.plan()
    done = dying.take()
    dying.complete(done, value(done), {})
    lost = dying.take()
    monkeypatch.undo()

    living = queue(tmp_path)
    assert living.reclaim() == 0, "its process lives"
    child.kill()
    assert living.reclaim() in (0, 1)  # as a zombie it is dead as well
    child.wait()
    living.reclaim()
    assert living.reclaim() == 0, "given back once"
    assert [t.values for t in living.finished().values()] == [value(done)]
    living.plan()
    again = [t for t in iter(living.take, None) if t.user_attrs["point"] == lost.user_attrs["point"]]
    assert [t.params for t in again] == [lost.params]
    dying.complete(lost, [0.0, 0.0], {})  # it was not dead after all: too late, and no error
    assert lost.user_attrs["point"] not in living.finished()


def test_a_setting_that_ends_its_process_every_time_is_given_up(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(owner, "me", lambda: owner_of_nobody())
    found = queue(tmp_path, trials=1, sampler="sobol")
    for _ in range(ATTEMPTS):
        assert found.plan() is False
        assert found.take() is not None
        assert found.reclaim() == 1
    assert found.plan() is True
    assert found.take() is None
    assert found.finished()[0].values is None


def owner_of_nobody() -> dict[str, Any]:
    return {"host": owner._host(), "pid": 2**22 + 1, "born": "1"}


def test_elsewhere_a_heartbeat_that_stands_still_is_death(monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr("fewbits.search.sweep._owner.time.monotonic", lambda: now[0])
    pulse, far = owner.Pulse(patience=60), {"host": "elsewhere", "pid": 1, "born": "1"}
    assert not pulse.gone(5, far, 1)
    now[0] += 50
    assert not pulse.gone(5, far, 2), "it beats"
    now[0] += 59
    assert not pulse.gone(5, far, 2)
    now[0] += 2
    assert pulse.gone(5, far, 2)
    assert not pulse.gone(6, None, None)
    now[0] += 31
    assert pulse.gone(6, None, None), "it died before it said who it is"


def test_a_failure_has_a_reason_and_is_not_repeated(tmp_path: Path) -> None:
    found = queue(tmp_path, trials=1, sampler="sobol")
    found.plan()
    found.fail(found.take(), "the file stays too large")
    assert found.plan() is True
    assert found.finished()[0].user_attrs["why"] == "the file stays too large"


def test_of_two_that_planned_at_once_one_trial_of_each_setting_counts(tmp_path: Path) -> None:
    found = queue(tmp_path, trials=2, sampler="sobol")
    found.plan()
    for trial in found.study.get_trials():
        found.study.enqueue_trial(trial.system_attrs["fixed_params"], user_attrs=dict(trial.user_attrs))
    taken = [found.take() for _ in range(4)]
    assert sum(t is not None for t in taken) == 2
    for trial in filter(None, taken):
        found.complete(trial, value(trial), {})
    assert found.plan() is True
    assert len(found.finished()) == 2


def test_another_sweep_under_the_same_name_is_refused(tmp_path: Path) -> None:
    queue(tmp_path)
    with pytest.raises(DataError, match=r"'s' in this storage has another recipe.*--name"):
        Queue(opened(None, tmp_path), "s", section(), {"recipe": "other"})


# -- storages --------------------------------------------------------------------------------------------


def test_a_database_serves_as_well(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'trials.db'}"
    for _ in range(2):  # opened again, it knows
        found = Queue(opened(address, tmp_path), "s", section(trials=1, sampler="sobol"), {"recipe": "r"})
        found.plan()
        trial = found.take()
        if trial is not None:
            found.complete(trial, [1.0, 2.0], {})
    assert trial is None
    assert list(found.finished()) == [0]


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("grpc://host", RecipeError, "written grpc://host:port"),
        ("nosuch://host/trials", DataError, "nosuch://host/trials cannot be opened"),
        ("sqlite:////no/such/folder/x.db", DataError, "cannot be opened"),
    ],
)
def test_storages_that_cannot_be_used(address: str, error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        opened(address, tmp_path)


def test_a_torn_last_line_loses_nothing_before_it(tmp_path: Path) -> None:
    first = queue(tmp_path, trials=2, sampler="sobol")
    first.plan()
    trial = first.take()
    first.complete(trial, value(trial), {})
    with (tmp_path / "sweep.journal").open("ab") as file:
        file.write(b'{"op_code": 6, "wor')
    second = queue(tmp_path, trials=2, sampler="sobol")
    assert [t.values for t in second.finished().values()] == [value(trial)]
    other = second.take()
    second.complete(other, value(other), {})
    assert len(queue(tmp_path, trials=2, sampler="sobol").finished()) == 2


def test_what_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "sweep.journal").write_text("nonsense\nand more\n")
    with pytest.raises(DataError, match="not a journal"):
        opened(None, tmp_path)


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"a sweep needs optuna: pip install 'fewbits\[search\]'"):
        opened(None, tmp_path)
