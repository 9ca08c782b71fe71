"""The README's table: what each network became, at each size, and what was published."""

from __future__ import annotations

import statistics
from typing import Any

from published import PUBLISHED
from tables import named, rows_of, span, table

NETWORKS = {
    "resnet-20": "ResNet-20, CIFAR-10",
    "vgg16-bn": "VGG16-BN, CIFAR-10",
    "mlp-gsc": "MLP_GSC, keywords",
    "mlp-activity": "MLP_GSC, human activity",
}
BESIDE = {"vgg16-bn": ("584.16 KB", "129 KB"), "mlp-gsc": ("87.52 KB",)}  # of PUBLISHED: what the aims were set by


def best() -> str:
    """One line per network and size: most seeds first, then the longest, then the best on validation data."""
    lines = [line for name in NETWORKS for line in _ours(name) + _narrowed(name) + _published(name)]
    titles = ["network", "float %", "test %", "points lost", "bytes", "ratio", "how", "seeds"]
    return (
        "**What networks became** (`benchmarks/ecqx.py`, `benchmarks/combined.py`; at each size the method best "
        "on validation data, of those with the most seeds the longest; test accuracy, mean and range):\n\n"
        + table(titles, lines)
        if lines
        else ""
    )


def _ours(name: str) -> list[list[str]]:
    found = [r for r in rows_of(f"ecqx/{name}") if not r.get("source")]
    lines = []
    for target in dict.fromkeys(r["target"] for r in sorted(found, key=lambda r: -r["bytes"])):
        groups: dict[tuple[float, str, float | None], list[dict[str, Any]]] = {}
        for row in found:
            if row["target"] == target:
                groups.setdefault((row["epochs"], named(row), row.get("lr")), []).append(row)
        rank = {key: (len(rows), key[0], _mean(rows, "validation_accuracy")) for key, rows in groups.items()}
        chosen = max(groups, key=lambda key: rank[key])
        lines.append(_line(NETWORKS[name], groups[chosen], f"{chosen[1]}, {chosen[0]:g} epochs"))
    return lines


def _narrowed(name: str) -> list[list[str]]:
    """Networks that lost channels first, where the size is one that nothing else has reached."""
    if name != "vgg16-bn":
        return []
    reached = {r["target"] for r in rows_of(f"ecqx/{name}") if not r.get("source")}
    rows = [r for r in rows_of("combined") if r["target"] not in reached]
    lines = []
    for target in dict.fromkeys(r["target"] for r in sorted(rows, key=lambda r: -r["bytes"])):
        row = max((r for r in rows if r["target"] == target), key=lambda r: (r["epochs"], r["validation_accuracy"]))
        gone = 100 * (1 - row["macs_left"] / row["macs"])
        how = f"{gone:.0f} % of the multiplications removed, then {named(row, row['method'].split(' + ')[1])}"
        lines.append(_line(NETWORKS[name], [row], f"{how}, {row['channel_epochs']:g} + {row['epochs']:g} epochs"))
    return lines


def _published(name: str) -> list[list[str]]:
    network = {"vgg16-bn": "VGG16 of others", "mlp-gsc": "MLP_GSC of others"}.get(name, "")
    return [
        _line(network, [row], f"published: {row['method'].split(',')[0]} ({row['source']})")
        for row in PUBLISHED.get(name, ())
        if row["target"] in BESIDE.get(name, ())
    ]


def _line(network: str, rows: list[dict[str, Any]], how: str) -> list[str]:
    accuracies, before = [r["accuracy"] for r in rows], _mean(rows, "baseline_accuracy")
    seeds = "-" if rows[0].get("source") else str(len(rows))
    size, ratio = _mean(rows, "bytes"), _mean(rows, "ratio")
    lost = before - statistics.mean(accuracies)
    return [network, f"{before:.2f}", span(accuracies), f"{lost:.2f}", f"{size:,.0f}", f"{ratio:.0f}x", how, seeds]


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(r[key] for r in rows)
