"""The table says what the report says, and fits."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fewbits.report import Report, TensorRow, render, text
from fewbits.report.table import comparison
from fewbits.report.words import duration, percent, shorten, shorten_all, times


def long_names(report: Report, count: int = 40) -> Report:
    rows = [
        TensorRow(f"backbone.stages.{i // 8}.blocks.{i % 8}.depthwise_separable.weight", (512, 512, 3, 3),
                  2_359_296, 4, 0.97, 100_000 + i, 0.4)
        for i in range(count)
    ]  # fmt: skip
    return report.updated(tensors=tuple(rows), file_bytes=10_000_000, float_bytes=400_000_000)


def line(report: Report, start: str, width: int = 100) -> str:
    (found,) = [x for x in text(report, width).splitlines() if x.startswith(start)]
    return found


def test_each_tensor_has_its_figures(report: Report) -> None:
    for row in report.tensors:
        name, shape, weights, bits, zeros, size, rate, entropy = line(report, row.name).split()
        assert (name, shape) == (row.name, "x".join(map(str, row.shape)))
        assert (int(weights), int(bits), int(size)) == (row.weights, row.bits, row.bytes)
        assert float(zeros) == pytest.approx(100 * row.zeros, abs=0.05)
        assert float(rate) == pytest.approx(8 * row.bytes / row.weights, abs=5e-4)
        assert float(entropy) == pytest.approx(row.entropy, abs=5e-4)


def test_the_sum_is_over_the_tensors(report: Report) -> None:
    weights, zeros, size, rate, entropy = line(report, "all clustered weights").split()[3:]
    count = sum(row.weights for row in report.tensors)
    assert (int(weights), int(size)) == (count, 31 + 77)
    assert float(zeros) == pytest.approx(100 * report.zeros, abs=0.05)
    assert float(rate) == pytest.approx(8 * 108 / count, abs=5e-4)
    mean = sum(row.entropy * row.weights for row in report.tensors) / count
    assert float(entropy) == pytest.approx(mean, abs=5e-4)


def test_the_file_is_its_parts(report: Report) -> None:
    said = text(report)
    assert "250 B (250 bytes)" in said
    assert "108 bytes clustered weights + 142 bytes floats, header, checks" in said
    assert "float32 bytes of all parameters and normalisation statistics / file bytes" in said
    assert f"{report.float_bytes / 250:.2f}x against" in said
    assert f"% of the clustered weights ({report.weights:,})" in said


def test_every_compressor_is_beside_ours(report: Report) -> None:
    for name, size, ratio in comparison(report):
        *_, said_size, said_ratio = line(report, name).split()
        assert int(said_size.replace(",", "")) == size
        assert said_ratio == times(ratio)
        assert ratio == pytest.approx(report.float_bytes / size)
    named = [name for name, _, _ in comparison(report)]
    assert named == ["this file (.few)", *report.others, "float32, uncompressed"]


@pytest.mark.parametrize(("identical", "word"), [(True, "yes"), (False, "NO"), (None, "not checked")])
def test_whether_it_decodes_to_the_same(report: Report, identical: bool | None, word: str) -> None:
    assert line(report.updated(identical=identical), "decoded == compressed").split(maxsplit=3)[3] == word


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": 300, "met": True}, "at most 300 B (300 bytes): met"),
        ({"target": None, "max_drop": 0.5, "met": False}, "at most 0.5 points of accuracy lost: NOT MET"),
        (
            {"target": None, "max_drop": None, "met": None},
            "none was asked for, so lambda was 0.02; say target=47 B, or max_drop=0.5",
        ),
        (
            {"target": None, "max_drop": None, "met": None, "recipe": {"assign": {"lam": 0.02}}},
            "none was asked for",
        ),
        ({"target": 300, "met": None}, "at most 300 B (300 bytes): not checked"),
    ],
)
def test_the_budget(report: Report, changes: dict[str, object], words: str) -> None:
    assert line(report.updated(**changes), "budget").split(maxsplit=1)[1] == words


def test_accuracy_names_its_data(report: Report) -> None:
    assert "91.25 % -> 90.50 % on test data (0.75 points lost)" in text(report)
    assert "91.25 % -> 92.00 % on test data (0.75 points gained)" in text(report.updated(accuracy_after=92.0))
    assert "not evaluated -> 90.50 %" in text(report.updated(accuracy_before=None))


@pytest.mark.parametrize("width", [60, 72, 80, 100, 140])
def test_nothing_is_wider_than_the_terminal(report: Report, width: int) -> None:
    said = text(long_names(report), width)
    assert max(map(len, said.splitlines())) <= width
    assert said.count("backbone.") == 40  # one line per tensor


def test_shortened_names_stay_apart(report: Report) -> None:
    names = re.findall(r"^backbone\S*", text(long_names(report), 100), re.MULTILINE)
    assert len(set(names)) == 40
    assert all("..." in name for name in names)


def test_a_terminal_shows_the_same_lines_and_no_markup(report: Report) -> None:
    hostile = TensorRow("[red]a[/red]\x1b[2J\n", (2,), 2, 4, 0.5, 3, 1.0)
    changed = report.updated(tensors=(hostile, *report.tensors))
    for colours in (None, "truecolor"):
        file = io.StringIO()
        render(changed, Console(file=file, width=90, color_system=colours, force_terminal=bool(colours)))
        plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
        assert plain.rstrip("\n") == text(changed, 90)
        assert "[red]a[/red]?[2J?" in plain


def test_without_tensors_nothing_speaks_of_clusters(report: Report) -> None:
    told = text(report.updated(tensors=()))
    assert "cluster" not in told.split("the same network as")[0]
    assert "bits per weight" not in told
    assert f"{report.file_bytes} bytes" in told


@given(st.floats(0, 1))
def test_a_share_is_never_rounded_to_none_or_all(share: float) -> None:
    assert (percent(share) == "0.0") == (share == 0)
    assert (percent(share) == "100.0") == (share == 1)


@given(st.text(), st.integers(5, 40))
def test_shortening_keeps_both_ends(name: str, width: int) -> None:
    short = shorten(name, width)
    assert len(short) <= width
    assert short.isprintable()
    if len(name) > width and name.isprintable() and "." not in name:  # else the dots could be the name's own
        start, _, end = short.partition("...")
        assert name.startswith(start)
        assert name.endswith(short[len(start) + 3 :])
        assert end


@given(st.lists(st.text("abc.", max_size=12), unique=True), st.integers(6, 12))
def test_shortening_together_keeps_the_order(names: list[str], width: int) -> None:
    short = shorten_all(names, width)
    assert len(short) == len(names)
    assert all(len(s) <= width and (s == n or "..." in s) for s, n in zip(short, names, strict=True))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (245.2, "4 min 05 s"), (7380, "2 h 03 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_row_has_what_results_need(report: Report) -> None:
    row = report.row()
    assert row["bytes"] == report.file_bytes
    assert row["ratio"] == pytest.approx(report.float_bytes / report.file_bytes)
    assert (row["accuracy"], row["baseline_accuracy"]) == (report.accuracy_after, report.accuracy_before)
    assert 0 <= row["sparsity"] <= 100
