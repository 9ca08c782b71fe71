"""Trials of every kind of recipe: what a sweep hands on, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fewbits import job, zoo
from fewbits import recipe as recipes
from fewbits.data import Normalisation
from fewbits.job import folder as outputs
from fewbits.job import sweep
from fewbits.job._trial import Trials
from fewbits.train.kept import KeptTraining

TINY = {"name": "lenet-300-100", "options": {"inputs": 64}}


def base(folder: Path, over: dict[str, Any], **more: Any) -> recipes.Recipe:
    weights = folder / "weights.safetensors"
    outputs.save_float(zoo.build("lenet-300-100", seed=0, inputs=64), weights, Normalisation())
    values = {
        "network": TINY | {"weights": str(weights)},
        "data": {"name": "digits", "batch_size": 64},
        "assign": {"method": "ecq", "lam": 0.2},
        "train": {"epochs": 0.3},
        "rounds": 2,
        "sweep": {"trials": 2, "over": over},
    }
    return recipes.make(values | more)


def test_a_sweep_after_removed_channels_leaves_no_state_and_is_not_stopped_by_anothers(tmp_path: Path) -> None:
    channels = {"parameters": 0.6, "samples": 64, "train": {"epochs": 0.2}}
    recipe = base(tmp_path, {"assign.bits": [3, 4]}, channels=channels)
    place = outputs.folder(tmp_path / "out" / "trials" / "000")
    (place / "unfinished.state").write_bytes(b"of another sweep")
    swept = sweep(recipe, tmp_path / "out", test=True)
    assert not swept.failed
    assert all(row["method"].startswith("0.6 of parameters") for row in swept.rows)
    assert [row["test_accuracy"] for row in swept.front]
    left = {path.name for path in (tmp_path / "out" / "trials").rglob("*") if path.is_file()}
    assert left == {"net.few"}


def test_an_interrupted_trial_goes_on_within_its_channel_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = {"parameters": 0.6, "samples": 64, "train": {"epochs": 2}}
    recipe = base(tmp_path, {"assign.bits": [3, 4]}, channels=channels)
    trials = Trials(recipe, job.prepare(recipe), outputs.folder(tmp_path / "out"))
    steps: list[int] = []
    real = KeptTraining.after_update

    def counted(self: KeptTraining, done: int, total: int, loss: float) -> None:
        real(self, done, total, loss)
        steps.append(done)
        if len(steps) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(KeptTraining, "after_update", counted)
    with pytest.raises(KeyboardInterrupt):
        trials.run(0, {"assign.bits": 3})
    trials.run(0, {"assign.bits": 3})
    assert steps[20] > 10
    assert steps[20:] == list(range(steps[20], steps[-1] + 1))
    done = len(steps)
    trials.run(0, {"assign.bits": 3})  # and what is finished is not gone on from
    assert steps[done] == 1


def test_int8_is_a_method_like_others(tmp_path: Path) -> None:
    sections = [{"method": "ecq", "lam": 0.2}, {"method": "int8"}]
    recipe = base(tmp_path, {"assign": sections}, assign={"method": "ecq"})
    swept = sweep(recipe, tmp_path / "out", test=True)
    assert not swept.failed
    assert sorted(row["method"] for row in swept.rows) == ["ecq", "int8"]
    assert all(row["test_accuracy"] is not None for row in swept.front)


def test_trials_listen_to_the_recipes_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = zoo.build("lenet-300-100", seed=1, inputs=64)
    outputs.save_float(teacher, tmp_path / "teacher.safetensors", Normalisation())
    part = TINY | {"weights": str(tmp_path / "teacher.safetensors")}
    train = {"epochs": 0.3, "distill": 0.5, "teacher": part}
    seen = []

    def compress(*given: Any, teacher: Any, **more: Any) -> Any:
        seen.append(teacher)
        return real(*given, teacher=teacher, **more)

    from fewbits.job import _trial as trial

    real = trial.compress
    monkeypatch.setattr(trial, "compress", compress)
    over = {"assign.bits": [4], "train": [train, {"epochs": 0.3}, train | {"teacher": None}]}
    swept = sweep(base(tmp_path, over, train=train).updated(sweep={"trials": 3, "over": over}), tmp_path / "out")
    assert len(swept.rows) == len(seen) == 1
    assert torch.equal(seen[0].layers[1].weight, teacher.layers[1].weight)
    assert len(swept.failed) == 2
    assert all("train.teacher cannot vary" in why for _, why in swept.failed)
