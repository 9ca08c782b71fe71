"""The README's tables about searches over layers."""

from __future__ import annotations

import statistics
from typing import Any

from tables import rows_of, span, table

TITLES = {
    "terminal": "agent, terminal reward (AMC's)",
    "raw": "agent, dense reward (PuRL's)",
    "potential": "agent, dense reward as potential",
    "sparsity": "agent, sparsity as potential",
    "qlp": "agent, many visits (QLP's)",
    "global-magnitude": "Global MP, five floors",
    "lamp": "LAMP",
    "erk": "ERK",
    "uniform": "uniform",
    "random": "random search",
    "greedy": "greedy sensitivity scan",
}
AGENTS = ("terminal", "raw", "potential", "sparsity", "qlp")
NEVER = float("inf")


def reinforcement() -> str:
    """Everything in results/reinforcement.json; what has not been run is left out."""
    found = rows_of("reinforcement")
    if not found:
        return ""
    networks = list(dict.fromkeys(r["experiment"] for r in found))
    return "\n\n".join(
        [sooner(found, networks), *(compared([r for r in found if r["experiment"] == n]) for n in networks)]
    )


def reached(row: dict[str, Any], score: float) -> float:
    """Evaluations after which a search has a score, or infinity."""
    return min((n for n, s in row["history"] if s >= score - 1e-12), default=NEVER)


def sooner(found: list[dict[str, Any]], networks: list[str]) -> str:
    rows = []
    for network in networks:
        mine = [r for r in found if r["experiment"] == network]
        goals = {r["seed"]: r["score"] for r in mine if r["method"] == "terminal"}
        for method in (*AGENTS, *(m for m in TITLES if m not in AGENTS)):
            some = [r for r in mine if r["method"] == method]
            # A searcher without a seed meets the goal of every seed.
            counts = sorted(
                reached(r, goal) for seed, goal in goals.items() for r in some if len(some) == 1 or r["seed"] == seed
            )
            if not counts:
                continue
            budget = mine[0]["budget"]
            middle = statistics.median(counts)
            rows.append([
                network, TITLES[method], f"{sum(c < NEVER for c in counts)} of {len(counts)}",
                f"{number(middle)} ({number(counts[0])} to {number(counts[-1])})",
                "-" if middle == NEVER else f"{middle / budget:.2f}", episodes(method, middle, mine[0]["layers"]),
            ])  # fmt: skip
    budgets = " and ".join(str(b) for b in dict.fromkeys(r["budget"] for r in found))
    return (
        "**How much to prune in each layer: evaluations of the network until the terminal-reward agent's result** "
        f"(its result after {budgets} evaluations, seed by seed; median and range; share: of those {budgets}; "
        "`benchmarks/reinforcement.py`):\n\n"
        + table(["network", "searcher", "runs that reach it", "evaluations", "share", "episodes"], rows)
    )


def episodes(method: str, evaluations: float, layers: int) -> str:
    """The same in episodes of one pass over the layers: how papers count."""
    if evaluations == NEVER or method not in ("terminal", "raw", "potential", "sparsity"):
        return "-"
    return f"{evaluations / layers if method in ('raw', 'potential') else evaluations:.1f}"


def number(count: float) -> str:
    return "never" if count == NEVER else f"{count:g}"


def compared(mine: list[dict[str, Any]]) -> str:
    one = mine[0]
    tuned = ""
    if some := [r for r in mine if "tuned_accuracy" in r]:
        seeds = len({r["seed"] for r in some})
        tuned = f"; trained: after {some[0]['tuned_epochs']:g} epochs under the mask, {seeds} of the seeds"
    titles = ["searcher", "score", "proxy accuracy %", "zeros %", "test accuracy %", *["trained %"] * bool(tuned)]
    rows = []
    for method, title in TITLES.items():
        some = [r for r in mine if r["method"] == method]
        if some:
            test = [r["accuracy"] for r in some if "accuracy" in r]
            after = [r["tuned_accuracy"] for r in some if "tuned_accuracy" in r]
            cells = [
                title, middle_of([r["score"] for r in some], 3), middle_of([r["proxy_accuracy"] for r in some], 1),
                middle_of([r["sparsity"] for r in some], 1), span(test) if test else "-",
            ]  # fmt: skip
            cells += [span(after) if after else "-"] if tuned else []
            rows.append([*cells, f"{max(r['evaluations'] for r in some)}", f"{len(some)}, {len(test)}"])
    return (
        f"**{one['model']}, {one['data']}: the best of {one['budget']} evaluations**, one-shot, statistics of "
        f"normalisation (if there is any) recalibrated, no training ({one['weights']:,} weights in {one['layers']} "
        f"layers; targets {100 * one['target_sparsity']:g} % zeros and {one['target_drop']:g} point lost; proxy: "
        f"{one['proxy_samples']} training images, dense {one['dense_proxy_accuracy']:.1f} %; test: dense "
        f"{next((r['baseline_accuracy'] for r in mine if 'baseline_accuracy' in r), 0):.2f} %; "
        f"median (range) over seeds, test accuracy mean (range){tuned}):\n\n"
        + table([*titles, "evaluations", "runs, tested"], rows)
    )


def middle_of(values: list[float], digits: int) -> str:
    """Median, and the range in brackets when there are several values."""
    told = f"{statistics.median(values):.{digits}f}"
    return told if len(values) == 1 else f"{told} ({min(values):.{digits}f} to {max(values):.{digits}f})"
