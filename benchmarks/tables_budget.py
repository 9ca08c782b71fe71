"""The README's table of budgets against sweeps, and what two workers do to its time."""

from __future__ import annotations

from typing import Any

from tables import rows_of, table


def budgets() -> str:
    found = rows_of("budget")
    runs = [r for r in found if r["method"] == "budget" and "best_bytes" in r]
    if not runs:
        return ""
    counts = {
        r["experiment"]: sum(t["method"] == "sweep" and t["experiment"] == r["experiment"] for t in found) for r in runs
    }
    rows = [line(r) for r in runs if r["target_bytes"] is not None]
    titles = ["network", "at most, bytes", "written", "of it %", "validation %", "best trial", "test %", "its test %"]
    trials = ", ".join(f"{name} {count}" for name, count in counts.items())
    parts = [
        "**A budget of bytes in one run, against a sweep** over lambda, bits, p, distillation and pruning from the "
        f"same float network with the same epochs (one seed; trials: {trials}; `benchmarks/budget.py`). Best trial: "
        "the highest validation accuracy of those no larger than the target; the test columns chose nothing:\n\n"
        + table(titles, rows)
    ]
    drops = [r for r in runs if r["max_drop"] is not None]
    if drops:
        told = [
            f"{r['model']} on {r['data']}: {r['bytes']:,} bytes, the smallest such trial {r['best_bytes']:,}"
            for r in drops
        ]
        parts.append(f"At most {drops[0]['max_drop']:g} points lost on validation data: " + "; ".join(told) + ".")
    return "\n\n".join([*parts, *workers(found)])


def line(r: dict[str, Any]) -> list[str]:
    return [
        f"{r['model']}, {r['data']}",
        f"{r['target_bytes']:,}",
        f"{r['bytes']:,}",
        f"{100 * r['bytes'] / r['target_bytes']:.1f}",
        f"{r['validation_accuracy']:.2f}",
        f"{r['best_validation_accuracy']:.2f} at {r['best_bytes']:,}",
        f"{r['accuracy']:.2f}",
        f"{r['best_accuracy']:.2f}",
    ]


def workers(found: list[dict[str, Any]]) -> list[str]:
    return [
        f"Two workers sharing one storage finish a sweep of {r['trials']} trials in {r['time']:.2f} of one worker's "
        f"time, with {'the same' if r['same_front'] else 'ANOTHER'} front (the machine was busy with other work)."
        for r in found
        if r["method"] == "two workers"
    ]
