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
    lines = [line for name in NETWORKS for line in _ours(name) + _published(name)]
    titles = ["network", "float %", "test %", "points lost", "bytes", "ratio", "how", "seeds"]
    return (
        "**What networks became** (`benchmarks/ecqx.py`, `benchmarks/combined.py`; at each size the method best "
        "on validation data, of those with the most seeds the longest; test accuracy, mean and range):\n\n"
        + table(titles, lines)
        if lines
        else ""
    )


def _ours(name: str) -> list[list[str]]:
    found = [(r, _how(r), r["epochs"]) for r in rows_of(f"ecqx/{name}") if not r.get("source")]
    if name == "vgg16-bn":
        found += [(r, _how_narrowed(r), r["channel_epochs"] + r["epochs"]) for r in rows_of("combined")]
    lines = []
    for target in dict.fromkeys(r["target"] for r, _, _ in sorted(found, key=lambda f: -f[0]["bytes"])):
        groups: dict[tuple[float, str, float | None], list[dict[str, Any]]] = {}
        for row, how, epochs in found:
            if row["target"] == target:
                groups.setdefault((epochs, how, row.get("lr")), []).append(row)
        rank = {key: (len(rows), key[0], _mean(rows, "validation_accuracy")) for key, rows in groups.items()}
        chosen = max(groups, key=lambda key: rank[key])
        lines.append(_line(NETWORKS[name], groups[chosen], chosen[1]))
    return lines


def _how(row: dict[str, Any]) -> str:
    return f"{named(row)}, {row['epochs']:g} epochs"


def _how_narrowed(row: dict[str, Any]) -> str:
    """Of a network that lost channels first."""
    gone = 100 * (1 - row["macs_left"] / row["macs"])
    method, epochs = named(row, row["method"].split(" + ")[1]), f"{row['channel_epochs']:g} + {row['epochs']:g} epochs"
    return f"{gone:.0f} % of the multiplications removed, then {method}, {epochs}"


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
