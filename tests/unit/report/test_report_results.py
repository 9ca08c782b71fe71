"""Result files: read, refused, grouped, drawn."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fewbits.errors import DataError
from fewbits.report import Report, Results, load_results, provenance, results_page
from fewbits.report._points import is_number, measured, points
from fewbits.report.provenance import commit
from fewbits.report.results import number

RESULTS = Path(__file__).parents[3] / "results"


def whole(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "benchmark": "curve",
        "commit": None,
        "command": "python benchmarks/curve.py",
        "machine": {"cpu": "some processor", "cores": 2},
        "versions": {"python": "3.11"},
        "rows": rows,
    }


def written(folder: Path, value: object) -> Path:
    path = folder / "curve.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_results_and_reports_are_read(tmp_path: Path, rows: list[dict[str, Any]], report: Report) -> None:
    found = load_results(written(tmp_path, whole(rows)))
    assert isinstance(found, Results)
    assert list(found.rows) == rows
    assert (found.benchmark, found.commit, found.machine["cores"]) == ("curve", None, 2)
    assert load_results(written(tmp_path, report.to_json())) == report


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": []}, "it has no rows"),
        ({"rows": {}}, "rows"),
        ({"rows": [1]}, "rows.0"),
        ({"rows": [{"accuracy": "high"}]}, "row 0: accuracy must be a finite number, got 'high'"),
        ({"rows": [{"bytes": True}]}, "row 0: bytes must be a finite number, got True"),
        ({"rows": [{}, {"seconds": float("nan")}]}, "row 1: seconds must be a finite number, got nan"),
        ({"rows": [{"seconds": 10**400}]}, "row 0: seconds must be a finite number"),
        ({"rows": [{"accuracy": [1]}, {"bytes": {}, "accuracy": "x"}]}, "row 1: accuracy must be a finite number"),
        ({"benchmark": 3}, "benchmark"),
        ({"commit": 3}, "commit"),
    ],
)
def test_wrong_results_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], change: dict[str, Any], words: str
) -> None:
    path = written(tmp_path, whole(rows) | change)
    with pytest.raises(DataError, match=r"curve\.json") as caught:
        load_results(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damaged", ["", "{", "[" * 100_000, "\ufeff{}", "null", "[]", "3", "{}", '{"rows": []}'])
def test_what_is_no_result_file_is_refused(tmp_path: Path, damaged: str) -> None:
    with pytest.raises(DataError, match=r"curve\.json"):
        load_results(written(tmp_path, damaged))


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json cannot be read: No such file"):
        load_results(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="damaged"):
        load_results(tmp_path / "binary.json")


@pytest.mark.parametrize(
    "change",
    [
        {"file_bytes": 0},
        {"file_bytes": "12"},
        {"float_bytes": -1},
        {"tensors": [{"name": "a"}]},
        {"others": {"gzip": 0}},
    ],
)
def test_wrong_reports_are_refused(tmp_path: Path, report: Report, change: dict[str, Any]) -> None:
    path = written(tmp_path, report.as_dict() | change)
    with pytest.raises(DataError, match=r"curve\.json"):
        load_results(path)


def test_points_join_the_seeds_of_a_setting(rows: list[dict[str, Any]]) -> None:
    found = points(rows)
    assert [(p.method, p.setting, len(p.rows)) for p in found] == [
        ("ecqx", {"bits": 2}, 3),
        ("ecqx", {"bits": 4}, 3),
        ("ecq", {"bits": 2}, 3),
        ("ecq", {"bits": 4}, 3),
    ]
    assert found[0].mean("accuracy") == 84
    assert found[0].values("bytes") == [2000, 2010, 2020]
    assert found[0].mean("absent") is None
    assert measured(rows) == ["accuracy", "baseline_accuracy", "bytes", "measured"]


def test_methods_are_told_apart_by_how_they_were_trained() -> None:
    """Also where not every seed has run at every target, and where older rows do not say what was usual."""
    rows = [
        {"method": "ecq", "target": target, "seed": seed, "epochs": epochs, "accuracy": accuracy, "bytes": size, **more}
        for target, seed, epochs, accuracy, size, more in (
            ("60 KB", 0, 2.0, 90.0, 60_000, {}),
            ("60 KB", 1, 2.0, 92.0, 60_000, {"step_rule": "range", "damping": 0.0}),
            ("43 KB", 0, 2.0, 80.0, 43_000, {}),
            ("43 KB", 0, 10.0, 91.0, 43_000, {"step_rule": "rate"}),
            ("43 KB", 0, 10.0, 85.0, 43_000, {"damping": 0.1}),
        )
    ]
    found = [(p.method, p.setting, p.mean("accuracy")) for p in points(rows)]
    assert found == [
        ("ecq, 2 epochs", {"target": "60 KB"}, 91.0),
        ("ecq, 2 epochs", {"target": "43 KB"}, 80.0),
        ("ecq, rate steps, 10 epochs", {}, 91.0),
        ("ecq, damping 0.1, 10 epochs", {}, 85.0),
    ]


def test_a_learning_rate_is_told_only_where_it_tells_trainings_apart() -> None:
    def names(*trainings: dict[str, Any]) -> list[str]:
        return [p.method for p in points([{"method": "ecq", "accuracy": 90.0, "bytes": 9, **t} for t in trainings])]

    assert names({"epochs": 1.0}, {"epochs": 2.0}) == ["ecq, 1 epoch", "ecq, 2 epochs"]
    assert names({"epochs": 2.0}, {"epochs": 10.0, "lr": 0.01}) == ["ecq, 2 epochs", "ecq, 10 epochs"]
    assert names({"epochs": 2.0, "lr": 0.1}, {"epochs": 2.0, "lr": 0.01}) == [
        "ecq, learning rate 0.1", "ecq, learning rate 0.01",
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_the_results_of_this_repository_can_be_drawn(path: Path) -> None:
    found = load_results(path)
    assert isinstance(found, Results)
    assert found.benchmark in results_page(found)


def test_one_seed_is_never_averaged() -> None:
    sweep = [{"method": "a", "seed": 0, "lam": lam, "accuracy": 90 - lam, "bytes": 100} for lam in (0.1, 0.2)]
    assert [p.setting for p in points(sweep)] == [{"lam": 0.1}, {"lam": 0.2}]


def test_the_page_has_mean_and_range(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    found = load_results(written(tmp_path, whole(rows)))
    assert isinstance(found, Results)
    html = results_page(found)
    assert "84.00 " in html
    assert "(83.00 to 85.00)" in html
    assert "2,010" in html
    assert "(2,000 to 2,020)" in html
    assert "Accuracy is of the split: test." in html
    assert "python benchmarks/curve.py" in html
    assert "some processor" in html
    assert html.count("<img ") == 1


def test_sets_of_one_network_are_sections_of_their_own(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    both = [{**row, "set": one} for one in ("cifar10", "cifar10-published") for row in rows]
    found = load_results(written(tmp_path, whole(both)))
    assert isinstance(found, Results)
    html = results_page(found)
    task = f"{rows[0]['model']} on {rows[0]['data']}"
    assert f"<h2>{task}, cifar10-published</h2>" in html
    assert html.count("<img ") == 2 * results_page(load_results(written(tmp_path, whole(rows)))).count("<img ")


def test_any_rows_can_be_shown() -> None:
    """Timings have no accuracy; two tasks are two sections."""
    rows = (
        {
            "model": "a", "data": "x", "method": "C coder", "encode_weights_per_second": 2.5e7,
            "speedup": 31.25, "versus": "Python",
        },
        {"model": "b", "data": "x", "method": "C coder", "seconds": 0.123456},
    )  # fmt: skip
    html = results_page(Results("speed", rows))
    assert "<img " not in html
    for words in (
        "a on x",
        "b on x",
        "25,000,000",
        "31.2x",
        "Speedup is against: Python.",
        "0.1235",
        "not known",
    ):
        assert words in html


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("accuracy", 97.125, "97.12"),
        ("bytes", 1234.0, "1,234"),
        ("ratio", 45.87, "45.9x"),
        ("x", 0.00012345, "0.0001234"),
    ],
)
def test_numbers(key: str, value: float, words: str) -> None:
    assert number(key, value) == words


@pytest.mark.parametrize("value", [True, None, "1", float("inf"), float("nan"), 10**400])
def test_what_is_not_a_number(value: object) -> None:
    assert not is_number(value)


def test_provenance_is_true_and_anonymous() -> None:
    found = provenance("curve", "python benchmarks/curve.py")
    assert list(found) == ["benchmark", "commit", "command", "machine", "versions"]
    assert found["versions"]["python"] == platform.python_version()
    assert found["machine"]["cpu"]
    said = json.dumps(found)
    assert str(Path.cwd()) not in said
    assert str(Path.home()) not in said
    node = platform.node()
    assert not node or node not in said


def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=b", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    ours, theirs = tmp_path / "tracked.py", tmp_path / "installed.py"
    ours.touch()
    theirs.touch()
    assert commit(ours) is None  # no repository at all
    git("init")
    git("add", "tracked.py")
    assert commit(ours) is None  # no commit yet
    git("commit", "-m", "x")
    assert commit(ours) == git("rev-parse", "HEAD")
    assert len(commit(ours) or "") == 40
    assert commit(theirs) is None  # an installed copy inside somebody else's repository
