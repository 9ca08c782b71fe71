"""The sweep command's own parts, on trials that nobody ran, and its complaints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fewbits import cli
from fewbits.cli import _sweep as cli_sweep
from fewbits.errors import DataError, RecipeError
from fewbits.job import Swept
from fewbits.recipe import make
from fewbits.report import load_results
from fewbits.report._sweep import front, trials

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits}
pretrain: {epochs: 0.1}
train: {epochs: 0.1}
"""


def row(trial: int, accuracy: float, size: int, on_front: bool, **more: Any) -> dict[str, Any]:
    return {
        "model": "net", "data": "digits", "method": "ecqx", "seed": 0, "split": "validation", "accuracy": accuracy,
        "baseline_accuracy": 99.0, "bytes": size, "float_bytes": 9000, "ratio": 9000 / size, "sparsity": 50.0,
        "bits": 4, "epochs": 1.0, "seconds": 1.0,
        "file": "trials/000/net.few", "assign.lam": 0.12345 * trial, "prune": None,
        "trial": trial, "front": on_front, **more,
    }  # fmt: skip


SWEPT = Swept(
    (
        row(0, 98.0, 3000, True, test_accuracy=97.5),
        row(1, 90.0, 900, True, test_accuracy=None),
        row(2, 89.0, 1000, False),
    ),
    (({"assign.lam": 9.0}, "the file stays too large"),),
    ("accuracy", "bytes"),
)  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["fewbits", "sweep", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err


def test_what_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli_sweep.tell(SWEPT, tmp_path, ["assign.lam", "prune"], "fewbits sweep x.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'failed: {"assign.lam": 9.0}: the file stays too large'
    assert " ".join(lines[1].split()) == "front trial validation % test % bytes zeros % assign.lam prune"
    table = [line.split() for line in lines[2:5]]
    assert table == [
        ["*", "1", "90.00", "900", "50.0", "0.1235", "-"],
        ["2", "89.00", "1,000", "50.0", "0.2469", "-"],
        ["*", "0", "98.00", "97.50", "3,000", "50.0", "0", "-"],
    ]
    found = load_results(tmp_path / "sweep.json")
    assert [dict(r) for r in found.rows] == json.loads(json.dumps(list(SWEPT.rows)))
    page = (tmp_path / "sweep.html").read_text()
    assert "3 trials of a sweep as dots, 2 of them on the front" in page
    assert "for the front also of test data, which chose nothing" in page


def test_costs_keep_the_digits_that_tell_them_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A latency is a part of a second, a count of multiplications has many digits."""
    costs = [(0.000312499, 40_551_424.0), (0.25, 1_234.5), (0.0, 12.0)]
    rows = tuple(row(i, 90.0, 900 + i, True, latency=s, macs=n) for i, (s, n) in enumerate(costs))
    cli_sweep.tell(Swept(rows, (), ("accuracy", "latency", "macs")), tmp_path, [], "fewbits sweep x.yaml")
    table = [line.split()[4:6] for line in capsys.readouterr().out.splitlines()[1:4]]
    assert table == [["0.0003125", "40,551,424"], ["0.25", "1,234"], ["0", "12"]]


def test_the_picture_marks_the_front_and_joins_it_upwards() -> None:
    more = row(3, 85.0, 2000, True)  # of a third objective's: below others in this plane
    (axes,) = front([*SWEPT.rows, more]).axes
    named = {line.get_label(): line for line in axes.get_lines()}
    others, best = named["other trials (1)"], named["front (3)"]
    assert sorted(zip(best.get_xdata(), best.get_ydata(), strict=True)) == [(900, 90.0), (2000, 85.0), (3000, 98.0)]
    assert list(zip(others.get_xdata(), others.get_ydata(), strict=True)) == [(1000, 89.0)]
    (joined,) = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
    assert list(joined.get_ydata()) == [90.0, 98.0]


def test_rows_that_are_no_trials_give_no_picture() -> None:
    plain = [{key: value for key, value in row(0, 90, 100, True).items() if key != "front"}]
    assert trials(plain, "net") == []
    with pytest.raises(DataError, match="no row is a trial"):
        front(plain)


def test_when_nothing_ran_the_reasons_stand_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="the reasons are above"):
        cli_sweep.tell(Swept((), SWEPT.failed, SWEPT.objectives), tmp_path, [], "")
    assert "too large" in capsys.readouterr().out


def test_a_section_of_a_file_takes_the_place_of_the_recipes(tmp_path: Path) -> None:
    recipe = make({"sweep": {"over": {"assign.bits": [2]}, "trials": 3}})
    assert cli_sweep.with_section(recipe, None, 7).sweep.trials == 7
    for text in ("over: {assign.bits: [5]}", "sweep: {over: {assign.bits: [5]}}"):
        (tmp_path / "s.yaml").write_text(text)
        assert cli_sweep.with_section(recipe, tmp_path / "s.yaml", None).sweep.over == {"assign.bits": [5]}
    (tmp_path / "s.yaml").write_text("over: {assign.bits: 5}")
    with pytest.raises(RecipeError, match="a list of values, or a range"):
        cli_sweep.with_section(recipe, tmp_path / "s.yaml", None)
    with pytest.raises(RecipeError, match=r"cannot read .*no\.yaml"):
        cli_sweep.with_section(recipe, tmp_path / "no.yaml", None)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("", "the recipe has no sweep section"),
        ("sweep: {over: {assign.bit: [2, 3]}}", r"unknown key 'assign.bit'; did you mean 'bits'"),
        ("sweep: {over: {assign.options.pp: [0.2, 0.3]}}", "assign.options of ecqx: no 'pp'; did you mean 'p'?"),
        ("sweep: {over: {assign.options.p: [a, b]}}", "assign.options of ecqx: "),
        (
            "sweep: {over: {assign.bits: [2]}, objectives: [accuracy, flop]}",
            "no cost named 'flop'; did you mean 'flops'",
        ),
    ],
)
def test_complaints_come_before_any_trial(
    section: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE + section + "\n")
    code, told = run(monkeypatch, capsys, tmp_path / "r.yaml", "--out", tmp_path / "out")
    assert code == 2
    assert says in told
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE + "sweep: {over: {assign.bits: [2, 3]}}\n")
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, told = run(monkeypatch, capsys, tmp_path / "r.yaml", "--out", tmp_path / "out")
    assert code == 2
    assert told == "error: a sweep needs optuna: pip install 'fewbits[search]'\n"
    assert not (tmp_path / "out").exists()


def test_a_single_compression_says_that_it_leaves_the_section_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE + "rounds: 1\nsweep: {over: {assign.bits: [2, 3]}}\n")
    monkeypatch.setattr(sys, "argv", ["fewbits", "compress", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        cli.main()
    assert "its sweep section is for 'fewbits sweep'" in capsys.readouterr().err
    assert "sweep" not in json.loads((tmp_path / "out" / "report.json").read_text())["recipe"]
