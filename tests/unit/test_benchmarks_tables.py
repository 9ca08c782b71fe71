"""The tables of benchmarks: no row of results/ goes missing, and the pages show what the rows say."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import derived, experiments, figures, results, tables

FILES = sorted(path.relative_to(results.FOLDER).with_suffix("").as_posix() for path in results.FOLDER.rglob("*.json"))


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[tables.Table]]:
    return {
        section: [table for description in some if "picture" not in description for table in tables.tables(description)]
        for section, some in tables.load().items()
    }


def test_every_row_of_the_results_is_in_a_table(drawn: dict[str, list[tables.Table]]) -> None:
    shown = set().union(*(ids for some in drawn.values() for _, ids in some))
    for name in FILES:
        whole = json.loads((results.FOLDER / f"{name}.json").read_text())
        ids = {(name, key, n) for key, rows in whole.items() if isinstance(rows, list) for n in range(len(rows))}
        assert not ids - shown, name


def test_no_column_of_a_table_is_empty(drawn: dict[str, list[tables.Table]]) -> None:
    for text, _ in (table for some in drawn.values() for table in some):
        head, _, *body = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
        assert {len(line) for line in body} == {len(head)}
        empty = [title for title, *cells in zip(head, *body, strict=True) if set(cells) == {tables.NONE}]
        known = {"gain", "epochs before", "accuracy", "time, same probes", "rank correlation, same probes"}
        assert set(empty) <= known | {"backward transfer"}  # of rows in sequence, which CIFAR-100 has not got yet
        assert not text.startswith(tables.NONE)  # a title with a column that is not there


def test_pages_show_the_tables(drawn: dict[str, list[tables.Table]]) -> None:
    pages = [(figures.ROOT / name).read_text() for name in ("README.md", "docs/figures.md")]
    for text, _ in (table for some in drawn.values() for table in some):
        assert any(text in page for page in pages), text[:200]


def test_commands_on_the_pages_name_experiments() -> None:
    for name in ("README.md", "docs/figures.md", "docs/design.md"):
        for words in re.findall(r"`python -m benchmarks\.run ([^`]*)`", (figures.ROOT / name).read_text()):
            told = [word for word in words.split() if word.islower() and not word.startswith("-")]
            assert set(told) <= set(experiments.names()), words


@pytest.mark.parametrize("name", FILES)
def test_rows_can_be_added_without_changing_a_byte_before_them(name: str, tmp_path: Path) -> None:
    text = (results.FOLDER / f"{name}.json").read_text()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / f"{name}.json").write_text(text)
    results.add(name, [{"accuracy": 1.0}], tmp_path)
    after = (tmp_path / f"{name}.json").read_text()
    old = json.loads(text)["rows"]
    assert json.loads(after)["rows"][:-1] == old
    kept = text[: text.index(json.dumps(old[-1], indent=1).splitlines()[-2])]
    assert after.startswith(kept)


@pytest.mark.parametrize(
    "name", ["demo-controls", "rate", "steps", "relevance-overhead", "codec", "curvature", "pruning-pipeline", "budget"]
)
def test_what_was_measured_before_rows_had_keys_is_not_measured_again(name: str) -> None:
    known = results.Known([results.FOLDER])
    assert [unit.labels for unit in experiments.units(name) if unit not in known] == []


def test_another_setting_was_not_measured_before() -> None:
    known = results.Known([results.FOLDER])
    for key, value in {"train.lr": 0.5, "train.epochs": 3, "significand": 4, "assign.options.min_kept": 0.25}.items():
        assert not [unit for unit in experiments.units("demo-controls", changes={key: value}) if unit in known], key
    both = experiments.units("resnet-20", changes={"train.epochs": 2})
    assert {unit.labels["method"] for unit in both if unit in known} == {"ecq"}  # the others had a gradual lambda


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{a}", "2.00 (1.00 to 4.00)"), ("{a:.1f}", "2.0"), ("{a:median:.1f}", "1.0 (1.0 to 4.0)"), ("{a:mid:g}", "1"),
        ("{a:n}", "3"), ("{a:list:g}", "1, 4"), ("{a:max:g}, {a:min:g}, {a:sum:g}", "4, 1, 6"), ("{b}", "x, y"),
        ("{c:g}", "7"), ("{d}", "-"), ("{a:g} of {none}", "-"), ("{e:mid:g}", "never"), ("{f}", "True"),
    ],
)  # fmt: skip
def test_what_a_cell_says(text: str, says: str) -> None:
    frame = pd.DataFrame({
        "a": [1.0, 1.0, 4.0], "b": ["x", "y", "x"], "c": [7.0, None, None], "d": [None] * 3, "e": [math.inf] * 3,
        "f": [True] * 3,
    })  # fmt: skip
    assert tables._filled(text, frame) == says


def test_a_table_has_a_line_per_label_and_a_block_per_column(tmp_path: Path) -> None:
    rows = [
        {"method": method, "seed": seed, "target": target, "accuracy": 90.0 + seed, "bytes": size}
        for method in ("b", "a")
        for seed in (0, 1)
        for target, size in (("1 KB", 1000), ("2 KB", 2000))
    ]
    results.add("x", [*rows[:-1], rows[-1] | {"accuracy": None}], tmp_path)
    description: dict[str, Any] = {
        "result": "x", "title": "of {seed:list:g}", "rows": {"scores": "{method}"}, "columns": "{target}",
        "sort": "-bytes", "cells": {"{column} ({bytes:,.0f})": "{accuracy}"}, "where": "method != 'c'",
    }  # fmt: skip
    ((text, ids),) = tables.tables(description, tmp_path)
    assert text.splitlines() == [
        "of 0, 1", "", "| scores | 2 KB (2,000) | 1 KB (1,000) |", "| --- | --- | --- |",
        "| b | 90.50 (90.00 to 91.00) | 90.50 (90.00 to 91.00) |", "| a | 90.00 | 90.50 (90.00 to 91.00) |",
    ]  # fmt: skip
    assert ids == {("x", "rows", n) for n in range(8)}
    assert list(tables.tables(description | {"where": "method == 'c'"}, tmp_path)) == []


def test_gains_are_against_the_recipe_as_it_is_with_the_same_seed() -> None:
    setting = {"result": "x", "target": "1 KB", "epochs": 2, "method": "ecq", "step_rule": "rate"}
    rows = [
        setting | {"lever": lever, "seed": seed, "validation_accuracy": value}
        for lever, seed, value in (("as it is", 0, 90.0), ("as it is", 1, 80.0), ("x", 0, 91.0), ("x", 1, 83.0))
    ]
    rows.append(setting | {"lever": "y", "seed": 0, "validation_accuracy": 95.0, "epochs": 3})
    rows.append(rows[-1] | {"step_rule": "range", "validation_accuracy": 94.5})
    found = derived.gains(pd.DataFrame(rows))["gain"]
    assert [None if pd.isna(v) else v for v in found] == [None, None, 1.0, 3.0, 0.5, None]


@pytest.mark.parametrize(
    ("over_tuned", "over_paper", "verdict"),
    [
        ((1, 2, 3), (9, 9, 9), "holds"),
        ((1, 2, 3), (9, -1, 9), "undecided"),
        ((1, -2, 3), (9, 9, 9), "undecided"),
        ((-1, -2, 0), (9, 9, 9), "only against under-trained backprop"),
        ((-1, -2, 0), (9, -9, 9), "does not hold"),
        ((1, 2), (9, 9), "too few seeds"),
    ],
)
def test_a_rule_beats_backprop_where_all_of_three_seeds_say_so(
    over_tuned: tuple[int, ...], over_paper: tuple[int, ...], verdict: str
) -> None:
    values = dict.fromkeys(derived.FINDINGS.values(), 50.0)
    rows = [
        values | {"id": 0, "rule": rule, "images": 9, "seed": seed} | dict.fromkeys(values, 50.0 - less)
        for seed, (tuned, paper) in enumerate(zip(over_tuned, over_paper, strict=True))
        for rule, less in (("mine", 0), ("backprop", tuned), ("backprop of the paper", paper))
    ]
    found = derived.contests(pd.DataFrame(rows))
    assert set(found["verdict"]) == {verdict}
    assert sorted(found["over_tuned"][found["finding"] == "blur"]) == sorted(over_tuned)


def test_what_a_curve_says_on_the_way() -> None:
    curves = [[[1, 30.0], [5, 41.5], [20, 42.0]], [[1, 42.0], [5, 41.5]]]
    found = derived.on_the_way(pd.DataFrame({"curve": curves}, index=[7, 3]))
    assert list(found["near"]) == [5, 1]
    assert list(found["after_5"]) == [41.5, 41.5]
    assert pd.isna(found["after_20"].iloc[1])


def test_a_claim_holds_where_its_interval_is_above_zero() -> None:
    """Differences 1, 2, 3 against 5, 4, 6: the interval is mean +- 4.303 s / sqrt 3."""
    rows = [
        {"experiment": "x", "method": method, "seed": seed, "accuracy": value, "transfer": -0.1 * (seed + 1)}
        for method, values in (("random", (6.0, 6.0, 9.0)), ("one each", (5.0, 4.0, 6.0)), ("trunk", (6.0, 9.0, 6.0)))
        for seed, value in enumerate(values)
    ]
    found = derived.claims(pd.DataFrame(rows)).set_index("measure")
    better = found.loc["accuracy, over one small network for each task"]
    assert better["value"] == pytest.approx(2.0)
    assert better["low"] == pytest.approx(2 - 4.303 / math.sqrt(3), abs=1e-3)
    assert better["high"] == pytest.approx(2 + 4.303 / math.sqrt(3), abs=1e-3)
    assert better["verdict"] == "cannot be told"
    assert found.loc["gain from each other task, left out"]["verdict"] == "cannot be told"
    rows += [row | {"method": "path-sized each", "accuracy": row["accuracy"] - 9 - row["seed"]} for row in rows[:3]]
    rows = [row | {"forgetting": 0.5} for row in rows]
    rows += [
        row | {"method": "random, in sequence", "accuracy": row["accuracy"] + 9, "forgetting": 9} for row in rows[:3]
    ]
    found = derived.claims(pd.DataFrame(rows)).set_index("measure")["verdict"]
    assert found["accuracy, over a path-sized network for each"] == "holds"
    assert found["accuracy, over the same network in sequence"] == "does not hold"
    assert found["points forgotten, fewer than in sequence"] == "holds"


def test_what_a_long_title_says_of_all_rows_is_a_list() -> None:
    short = "**A** (`python -m benchmarks.run a`; one seed):"
    assert tables.listed(short) == short
    words = "long " * 40
    told = tables.listed(
        f"**What (it) is**, {words}(`python`, twice; this (one; here) v. 1.5; that). And more. It ends:"
    )
    head, *facts = told.split("\n- ")
    assert head == f"**What (it) is**, {words.strip()}:\n"
    assert facts == ["`python`, twice", "this (one; here) v. 1.5", "that", "And more", "It ends"]
    assert tables.listed(words) == words
