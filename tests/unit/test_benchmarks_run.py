"""The runner of benchmarks in miniature: keys, resuming, the list of a GPU, what must not be started or left behind."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import experiments, results
from benchmarks.run import main
from benchmarks.unit import Place, Unit, keys_of, words
from fewbits.errors import DataError, NonFiniteError, RecipeError
from fewbits.pipeline.check import check
from fewbits.recipe import make

TINY = """
result: tiny
recipe:
  network: {name: digits-net}
  data: {name: digits, batch_size: 64}
  pretrain: {epochs: 1, lr: 5.0e-3}
  assign: {method: ecqx, bits: 4, options: {zero_floor: 0.5, momentum: 0.95}}
  train: {epochs: 0.5, lr: 5.0e-3}
  rounds: 1
vary: {target: [40 KB, 20 KB], method: [ecq]}
minutes: 2
float_minutes: 3
"""
FAKE = "kind: fake\nvary: {model: [one, two, three]}\nminutes: 2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Experiments, with room for results and work beside them."""
    place = tmp_path / "experiments"
    place.mkdir()
    (place / "tiny.yaml").write_text(TINY)
    (place / "fake.yaml").write_text(FAKE)
    return place


def run(folder: Path, *words: str) -> int:
    out, work = str(folder.parent / "out"), str(folder.parent / "work")
    return main(["--experiments", str(folder), "--out", out, "--work", work, "--again", *words])


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return results.rows_in(name, folder.parent / "out")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A kind that measures nothing; the list holds what it was asked, and what it raises for a model."""
    asked: list[Any] = []

    def measure(unit: Unit, place: Place) -> list[dict[str, Any]]:
        asked.append(unit.labels["model"])
        for error in [e for e in asked if isinstance(e, tuple) and e[0] == unit.labels["model"]]:
            raise error[1]
        return [unit.labels | {"accuracy": 1.0, "part": n} for n in (1, 2)]

    module = ModuleType("benchmarks.kinds.fake")
    module.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.kinds.fake", module)
    return asked


def test_two_rows_are_run_and_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "tiny", "--where", "target == '40 KB'") == 0
    before = (folder.parent / "out" / "tiny.json").read_text()
    (first,) = rows(folder, "tiny")
    assert first["bytes"] <= 40_000
    assert first["identical"] is True
    assert first["method"] == "ecq"
    assert run(folder, "tiny") == 0
    one, two = rows(folder, "tiny")
    assert one == first
    assert (two["target"], two["baseline_accuracy"]) == ("20 KB", first["baseline_accuracy"])
    text = (folder.parent / "out" / "tiny.json").read_text()
    assert text.startswith(before.rstrip(" ]}\n"))  # the bytes of what was there
    assert len(list((folder.parent / "work" / "floats").iterdir())) == 1  # trained once
    assert str(folder.parent) not in text  # no place of this machine
    capsys.readouterr()
    assert run(folder, "tiny") == 0
    assert capsys.readouterr().out == ""


def test_a_changed_recipe_is_another_row_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    one, two = experiments.units("tiny", folder)
    assert one.key != two.key
    (changed, _) = experiments.units("tiny", folder, {"train.lr": 1e-3})
    assert changed.key != one.key
    (seeded, _) = experiments.units("tiny", folder, seeds=[1])
    assert seeded.key != one.key
    assert experiments.units("tiny", folder)[0].key == one.key
    assert one.recipe is not None
    placed = Place(tmp_path, data=tmp_path / "data").located(one.recipe)
    assert dataclasses.replace(one, recipe=placed, labels={"method": "another name"}).key == one.key


def test_what_is_asked_for_goes_before_what_varies(folder: Path) -> None:
    found = experiments.units("tiny", folder, {"target": "30 KB", "method": "magnitude"})
    assert [(unit.labels["target"], unit.labels["method"]) for unit in found] == [("30 KB", "magnitude")] * 2
    assert len({unit.key for unit in found}) == 1
    assert found[0].recipe is not None
    assert (found[0].recipe.target, found[0].recipe.measure.name) == ("30 KB", "magnitude")


def test_a_recipe_of_several_names_is_run_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr("benchmarks.kinds.recipe.measure", lambda unit, _: started.append(unit.labels["lever"]) or [])
    text = TINY.replace(
        "vary: {target: [40 KB, 20 KB], method: [ecq]}", "vary: {lever: {a: {}, b: {}, c: {rounds: 2}}}"
    )
    (folder / "levers.yaml").write_text(text)
    assert run(folder, "levers") == 0
    assert started == ["a", "c"]


def test_the_float_network_is_shared_by_what_starts_from_it(folder: Path, tmp_path: Path) -> None:
    one, two = (unit.recipe for unit in experiments.units("tiny", folder))
    (longer, _) = (unit.recipe for unit in experiments.units("tiny", folder, {"pretrain.epochs": 2}))
    assert one is not None
    assert two is not None
    assert longer is not None
    place = Place(tmp_path)
    assert place.float_file(one) == place.float_file(two) != place.float_file(longer)


def test_a_row_is_known_after_recipes_got_a_field(folder: Path) -> None:
    unit, _ = experiments.units("tiny", folder)
    (row,) = results.stamped(unit, [{"accuracy": 1.0}])
    assert keys_of(row) == {unit.key}
    older = json.loads(json.dumps(row)) | {"key": "of then"}
    del older["recipe"]["merge_normalisation"]  # as if it had not been there yet
    assert keys_of(older) == {"of then", unit.key}
    older["recipe"]["train"]["settle"] = 0.2  # as if the default had changed since
    assert unit.key not in keys_of(older)
    older["recipe"] = {"rehearsals": 3}  # of another schema
    assert keys_of(older) == {"of then"}


def test_words_of_a_recipe_read_back(folder: Path) -> None:
    for unit in experiments.units("tiny", folder):
        assert unit.recipe is not None
        assert words(make(words(unit.recipe))) == words(unit.recipe)


def test_an_interrupted_row_leaves_nothing_behind(folder: Path, fake: list[Any]) -> None:
    fake.append(("two", KeyboardInterrupt()))
    assert run(folder, "fake") == 130
    assert [(r["model"], r["part"]) for r in rows(folder, "fake")] == [("one", 1), ("one", 2)]
    assert [path.name for path in (folder.parent / "out").iterdir()] == ["fake.json"]
    fake.clear()
    assert run(folder, "fake") == 0
    assert fake == ["two", "three"]
    assert [r["model"] for r in rows(folder, "fake")] == ["one", "one", "two", "two", "three", "three"]


def test_a_training_that_is_interrupted_writes_no_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.kinds.recipe.jobs.run", stopped)
        assert run(folder, "tiny") == 130
    assert not (folder.parent / "out").exists()
    assert "the same command goes on" in capsys.readouterr().out


def test_rows_do_not_wait_for_one_that_fails(folder: Path, fake: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    fake.append(("two", NonFiniteError("the loss is nan")))
    assert run(folder, "fake") == 1
    assert [r["model"] for r in rows(folder, "fake")] == ["one", "one", "three", "three"]
    assert "failed: fake, seed 0, model two: NonFiniteError: the loss is nan" in capsys.readouterr().out


def test_the_list_of_a_gpu_is_worked_off_by_worth_within_its_minutes(
    folder: Path, fake: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "gpu.yaml").write_text(
        "- {experiment: fake, where: model == 'three', minutes: 1}\n"
        "- {experiment: fake, where: model == 'two', minutes: 30}\n"
        '- {experiment: fake, where: \'model in ["three", "one"]\', seeds: [0], minutes: 2}\n'
    )
    assert run(folder, "--gpu", "--minutes", "9") == 0
    assert fake == ["three", "one"]  # the row that is too long is not started, and those after it are
    assert "not started, takes 30 minutes: fake, seed 0, model two" in capsys.readouterr().out
    assert run(folder, "--gpu", "--minutes", "9") == 0
    assert fake == ["three", "one"]
    assert run(folder, "--gpu", "--minutes", "31") == 0
    assert fake == ["three", "one", "two"]
    assert not (results.FOLDER / "fake.json").exists()


def test_an_estimate_counts_the_float_network_until_it_is_there(folder: Path, tmp_path: Path) -> None:
    unit, place = experiments.units("tiny", folder)[0], Place(tmp_path)
    assert place.minutes(unit) == 5
    assert unit.recipe is not None
    file = place.float_file(unit.recipe)
    file.parent.mkdir()
    file.touch()
    assert place.minutes(unit) == 2


def test_minutes_ask_for_one_worker(folder: Path) -> None:
    with pytest.raises(SystemExit):
        run(folder, "tiny", "--minutes", "9", "--workers", "2")


def test_validation_writes_nothing(folder: Path, fake: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "fake", "--validation", "--where", "model == 'one'") == 0
    assert '"split": "validation"' in capsys.readouterr().out
    assert not (folder.parent / "out").exists()


def test_rows_of_another_machine_are_taken_over_once(folder: Path, fake: list[Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run(folder, "fake", "--where", "model == 'one'") == 0
    assert results.take(tmp_path / "out", home) == 2
    assert run(folder, "fake") == 0
    assert results.take(tmp_path / "out", home) == 4
    assert results.take(tmp_path / "out", home) == 0
    assert results.rows_in("fake", home) == rows(folder, "fake")


def test_a_file_that_would_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"benchmark": "x", "rows": [{"accuracy": 1}]}')
    with pytest.raises(DataError, match="would change"):
        results.add("x", [{"accuracy": 2}], tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [("kinds: x\n", "unknown key 'kinds'"), ("rows: [{vari: {}}]\n", "unknown key 'vari'")],
)
def test_unknown_keys_of_experiments_are_refused(folder: Path, text: str, says: str) -> None:
    (folder / "odd.yaml").write_text(text)
    with pytest.raises(RecipeError, match=says):
        experiments.units("odd", folder)
    with pytest.raises(RecipeError, match="no experiment 'none'; there are: fake, odd, tiny"):
        experiments.units("none", folder)


KINDS = {
    "combined": "set: {channels: {macs: 0.6, train: {epochs: 1, lr: 0.01}}}",
    "int8": "set: {assign: {method: int8}, target: null, train.epochs: 0}",
    "sweep": "set: {target: null, sweep: {trials: 2, over: {assign.lam: [0.1, 0.3]}}}\n"
    "options: {targets: [12 KB], max_drop: 1.0}",
    "remainder": "options: {bits: [11, 5]}",
    "repair": "options: {target_sparsity: 0.8, repair: recalibrated}\nlabel: {model: digits-net}",
    "recalibration": "options: {samples: 128, scored: 64, fewer_macs: 1.4}\nlabel: {case: fewer}",
    "layer_rates": "options: {budget: 5, drop: 1, proxy: 100, calibration: 64, precision: float32, tune: 0.2, "
    "sparsity: 0.8}\nlabel: {experiment: digits, method: potential}",
    "channels": "options: {epochs: 0.2, lr: 0.02, distill: 0, samples: 64, cap: 0.9, criterion: magnitude}\n"
    "label: {method: magnitude measured per mac, target: 2.1x}",
    "collapse": "set: {prune: {sparsity: 0.95}, assign: {method: none}, target: null}",
    "codec_scaling": "options: {counts: [100000], base: 100000, profile: fast}",
    "rules": "options: {images: 200, fraction: 0.5, trials: [{lr: 0.01}, {lr: 0.02}], shown: 50, noise: gaussian, "
    "curve: true}\nlabel: {rule: backprop}",
    "rule_alignment": "options: {images: 200, every: 2}\nlabel: {rule: backprop}",
    "recovery": "set: {target: null, assign: {method: none}, prune: {sparsity: 0.9}, train.epochs: 1}\n"
    "options: {images: 200, fraction: 0.5, lr: [0.01], shown: 50}\nlabel: {rule: backprop}",
    "rule_cost": "options: {layers: 3, width: 4, size: 8, batch: 4, repeats: 1}\nlabel: {layers: 3}",
    "selection": "options: {weights: 1000000}",
    "suppression": "options: {sets: 40, boxes: 8, objects: 2, jitter: 0.1, labels: 2, single: 10, part: 20, "
    "threshold: 0.5}\n"
    "label: {boxes of: 2 objects}",
    "faithfulness": "options: {images: 8}",
    "detector": "options: {steps: 2, canvases: 4, thresholds: [0.5], least: 0.0}\nlabel: {boxes of: cells}",
    "swapped": "options: {width: 8, tokens: 4, layers: 1, batch: 2, rounds: 1, "
    "fits: [{bits: 8}, {bits: 8}, {bits: 10}]}\n"
    "label: {model: blocks, kind: integer}",
    "tasks": "options: {data: digits, widths: [4, 4], modules: 3, per_layer: 1, merge: sum, norm: task, "
    "optimizers: per-task, batch: 64, training: {epochs: 1}, search: 0.5, transfer: affinity}\n"
    "label: {method: affinity}",
    "relevance_overhead": "options: {repeats: 1, batch: 8, threads: 1, model: mlp-gsc, rules: plus, samples: 8, "
    "precision: float32, every: 1}",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_measures_something_in_miniature(folder: Path, kind: str) -> None:
    (folder / "small.yaml").write_text(
        TINY.replace("result: tiny\n", "").split("vary:")[0].replace("  rounds", "  target: 20 KB\n  rounds")
    )
    (folder / "one.yaml").write_text(f"base: small\nkind: {kind}\n{KINDS[kind]}\n")
    assert run(folder, "one") == 0
    assert rows(folder, "one")
    assert all(row["kind"] == kind for row in rows(folder, "one"))


def test_every_kind_can_be_imported() -> None:
    for path in (experiments.HERE / "kinds").glob("*.py"):
        if not path.stem.endswith("_peer"):  # a script for another interpreter
            import_module(f"benchmarks.kinds.{path.stem}")


def test_every_experiment_can_be_read() -> None:
    for name in experiments.names():
        found = experiments.units(name)
        assert found
        if found[0].kind != "recipe":  # of which a lever may be what the recipe has already
            assert len({unit.key for unit in found}) == len(found), name
        for unit in found:
            assert (experiments.HERE / "kinds" / f"{unit.kind}.py").is_file()
            if unit.kind in ("recipe", "combined", "int8", "collapse", "sweep"):
                assert unit.recipe is not None
                check(unit.recipe)


def test_the_list_of_a_gpu_names_rows_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu", "--dry"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " min " in line]
    assert "floats" in lines[0]
    assert "vgg16-frontier, seed 0, target 129 KB, method ecq" in lines[1]
    assert len({line.split()[0] for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("speed > 2", "settings are: .*model"),
        ("model ==", "settings are: .*model"),
        ("seed + 1", "no condition"),
    ],
)
def test_a_condition_on_nothing_that_there_is_says_what_there_is(
    folder: Path, condition: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(folder, "fake", "--where", condition)
    assert re.search(says, " ".join(capsys.readouterr().err.split()))
