"""Rows of the result files, and tables of them in Markdown."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def rows_of(name: str) -> list[dict[str, Any]]:
    path = ROOT / "results" / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def span(values: list[float]) -> str:
    """Mean, and the range in brackets when there are several."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def named(row: dict[str, Any], method: str = "") -> str:
    """The method of a row of the scale benchmark, and what was special about its training."""
    return (
        (method or row["method"])
        + (f", damping {row['damping']:g}" if row.get("damping") else "")
        + (", steps by the rate" if row.get("step") == "rate" else "")
        + (", without dropout" if row.get("dropout") is False else "")
        + (", gradual lambda" if row.get("gradual") else "")
        + (f", floor {100 * row['floor']:g} %" if row.get("floor") else "")
        + (f", {row['significand']} significant bits" if row.get("significand") else "")
    )


def by_target(found: list[dict[str, Any]]) -> str:
    """Accuracy of every method at every byte target, mean and range over the seeds."""
    targets = list(dict.fromkeys(r["target"] for r in sorted(found, key=lambda r: -r["bytes"])))
    rows = []
    for method in dict.fromkeys(r["method"] for r in found):
        mine = [[r["accuracy"] for r in found if (r["method"], r["target"]) == (method, t)] for t in targets]
        rows.append([method, *(span(values) if values else "" for values in mine)])
    ratios = [statistics.mean(r["ratio"] for r in found if r["target"] == t) for t in targets]
    return table(["scores", *(f"{t} ({q:.0f}x)" for t, q in zip(targets, ratios, strict=True))], rows)
