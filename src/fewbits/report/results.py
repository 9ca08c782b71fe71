"""Result files of benchmarks: reading them, and drawing any of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fewbits.errors import DataError
from fewbits.recipe.problems import said
from fewbits.report import plots
from fewbits.report._document import document, picture, section, table
from fewbits.report._learning import PATHS, check_paths, learning
from fewbits.report._markup import Markup, el
from fewbits.report._points import MEASURED, Point, Row, by_task, is_number, measured, points
from fewbits.report._sweep import is_trial, trials
from fewbits.report.provenance import provenance
from fewbits.report.report import Report
from fewbits.report.words import times

__all__ = ["Results", "load_results", "provenance", "results_page", "sections"]


@dataclass(frozen=True)
class Results:
    """A result file, ``results/<benchmark>.json``.

    Attributes:
        commit, command, machine, versions: how ``rows`` were measured, see :func:`provenance`.
        rows: dictionaries, one per measurement. Values that are lists or dictionaries are left out, but for what a
            learning rule's row tells of the way.
    """

    benchmark: str
    rows: tuple[dict[str, Any], ...]
    commit: str | None = None
    command: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def load_results(path: str | os.PathLike[str]) -> Results | Report:
    """Read a result file, or a report that :meth:`Report.to_json` wrote.

    Raises:
        DataError: the file is missing, damaged, or neither of the two; the message says what is wrong where.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON, or damaged: {error}") from error
    if isinstance(found, dict) and "benchmark" in found and "rows" in found:
        return _checked(Results, text, path)
    if isinstance(found, dict) and "tensors" in found and "file_bytes" in found:
        return _checked(Report, text, path)
    raise DataError(
        f"{path} is neither a result file, which has 'benchmark' and 'rows', nor a report, which has "
        "'tensors' and 'file_bytes'"
    )


def _checked(kind: type[Results] | type[Report], text: str, path: Path) -> Results | Report:
    try:
        value: Results | Report = TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {where}{said(first)} (and {error.error_count() - 1} more)") from error
    if isinstance(value, Results):
        value = replace(value, rows=tuple(_flat(row) for row in value.rows))
        _check_rows(value, path)
        return value
    if min(value.file_bytes, value.float_bytes, *value.others.values()) < 1:
        raise DataError(f"{path}: sizes must be at least one byte")
    return value


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """What a table or a picture can show."""
    return {key: value for key, value in row.items() if key in PATHS or not isinstance(value, dict | list)}


def _check_rows(results: Results, path: Path) -> None:
    if not results.rows:
        raise DataError(f"{path}: it has no rows")
    for number, row in enumerate(results.rows):
        try:
            check_paths(row)
        except DataError as error:
            raise DataError(f"{path}: row {number}: {error}") from None
        for key, value in row.items():
            if key in MEASURED and value is not None and not is_number(value):
                raise DataError(f"{path}: row {number}: {key} must be a finite number, got {value!r}")


def results_page(results: Results) -> str:
    """One self-contained HTML page about a result file.

    Per model and data set: a picture, where rows have both an accuracy and bytes, and a table of mean, lowest
    and highest over the seeds.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    how = [
        ["commit", results.commit or "not known"],
        ["command", results.command],
        *([name, str(value)] for name, value in {**results.machine, **results.versions}.items()),
    ]
    return document(
        results.benchmark,
        el(
            "header",
            el("h1", results.benchmark),
            el("p", f"{len(results.rows):,} measurements", class_="soft"),
        ),
        *sections(results.rows),
        section("How it was measured", table(("", " "), how, caption="Run it again like this.", words=(" ",))),
    )


def sections(rows: Sequence[Row]) -> list[Markup]:
    """A section for each (model, data) of the rows, and for each set of experiments with it, if rows name several."""
    return [_task(name, mine) for (model, data), own in by_task(rows).items() for name, mine in _sets(model, data, own)]


def _sets(model: str, data: str, rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    found = list(dict.fromkeys(row.get("set") for row in rows))
    name = f"{model} on {data}"
    if len(found) < 2:
        return [(name, rows)]
    names = {one: name if one in (None, data) else f"{name}, {one}" for one in found}
    return [(names[one], [row for row in rows if row.get("set") == one]) for one in found]


def _task(name: str, rows: Sequence[Row]) -> Markup:
    drawn = [row for row in rows if is_number(row.get("accuracy")) and is_number(row.get("bytes"))]
    parts = [*trials(rows, name), *learning(rows, name)]
    rows = [{k: v for k, v in row.items() if k not in PATHS} for row in rows if not is_trial(row)]
    drawn = [row for row in drawn if not is_trial(row)]
    if drawn:
        methods = ", ".join(dict.fromkeys(str(row.get("method", "-")) for row in drawn))
        parts.append(
            picture(
                plots.accuracy_v_bytes(drawn),
                f"Accuracy over bytes of the file on {name}, a line per method: {methods}.",
                "Up and to the left is better. Lines join means over seeds; each faint dot is one seed.",
            )
        )
    return section(name, *parts, *([_table(rows)] if rows else []))


def _table(rows: Sequence[Row]) -> Markup:
    keys, found = measured(rows), points(rows)
    settings = list(dict.fromkeys(key for point in found for key in point.setting))
    body = [
        [
            point.method,
            *(str(point.setting.get(key, "")) for key in settings),
            str(len(point.rows)),
            *(_cell(point, key) for key in keys),
        ]
        for point in found
    ]
    notes = [
        f"{label}: {', '.join(values)}."
        for key, label in (("split", "Accuracy is of the split"), ("versus", "Speedup is against"))
        if (values := list(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None)))
    ]
    return table(
        ("method", *settings, "runs", *(MEASURED.get(key, key) for key in keys)),
        body,
        caption=" ".join(["Mean, and (lowest to highest) over the runs, one per seed.", *notes]),
    )


def _cell(point: Point, key: str) -> str | Markup:
    values = point.values(key)
    if not values:
        return "-"
    mean, low, high = (number(key, v) for v in (sum(values) / len(values), min(values), max(values)))
    if low == high:
        return mean
    return el("td", mean, " ", el("span", f"({low} to {high})", class_="soft"))


def number(key: str, value: float) -> str:
    """A measured value as tables write it."""
    if key in ("accuracy", "baseline_accuracy"):
        return f"{value:.2f}"
    if key in ("ratio", "speedup"):
        return times(value)
    if key.endswith("bytes") or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
