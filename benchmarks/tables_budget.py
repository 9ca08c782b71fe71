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
    titles = [
        "network",
        "at most, bytes",
        "written",
        "of it %",
        "bits",
        "validation %",
        "best trial",
        "test %",
        "its test %",
    ]
    trials = ", ".join(f"{name} {count}" for name, count in counts.items())
    parts = [
        "**A budget of bytes in one run, against a sweep** over lambda, bits, p, distillation and pruning from the "
        f"same float network with the same epochs (one seed; trials: {trials}; `benchmarks/budget.py`). Best trial: "
        "the highest validation accuracy of those no larger than the target; the test columns chose nothing:\n\n"
        + table(titles, rows)
    ]
    parts += dropped(found)
    return "\n\n".join([*parts, *variants(found), *workers(found)])


def dropped(found: list[dict[str, Any]]) -> list[str]:
    """Budgets of accuracy: sizes from short trainings, from what each round shows, and a sweep's smallest."""
    runs = [r for r in found if r["method"] == "budget" and r["max_drop"] is not None and "best_bytes" in r]
    steered = {r["experiment"]: r for r in found if r["method"] == "budget, steered by rounds"}
    rows = []
    for r in runs:
        before = steered.get(r["experiment"])
        rows.append(
            [
                f"{r['model']}, {r['data']}",
                f"{r['bytes']:,}",
                f"{r['validation_accuracy']:.2f} of {r['validation_baseline']:.2f}",
                f"{r['accuracy']:.2f} of {r['baseline_accuracy']:.2f}",
                f"{before['bytes']:,}, {before['accuracy']:.2f}" if before else "-",
                f"{r['best_bytes']:,}, {r['best_accuracy']:.2f}",
            ]
        )
    if not rows:
        return []
    titles = ["network", "bytes", "validation %", "test %", "steered by rounds: bytes, test %", "smallest trial"]
    words = f"**At most {runs[0]['max_drop']:g} point lost on validation data:** the smallest file found"
    return [f"{words}:\n\n{table(titles, rows)}"]


def line(r: dict[str, Any]) -> list[str]:
    return [
        f"{r['model']}, {r['data']}",
        f"{r['target_bytes']:,}",
        f"{r['bytes']:,}",
        f"{100 * r['bytes'] / r['target_bytes']:.1f}",
        str(r["bits"]),
        f"{r['validation_accuracy']:.2f}",
        f"{r['best_validation_accuracy']:.2f} at {r['best_bytes']:,}",
        f"{r['accuracy']:.2f}",
        f"{r['best_accuracy']:.2f}",
    ]


def workers(found: list[dict[str, Any]]) -> list[str]:
    told = []
    for r in (r for r in found if r["method"] == "two workers"):
        same = "the same" if r["same_front"] else "ANOTHER"
        told.append(
            f"Two workers sharing one storage took {r['time']:.2f} of one worker's time for {r['trials']} trials on "
            f"two cores, and found {same} front."
        )
    for r in (r for r in found if r["method"].endswith("waiting trials")):
        told.append(
            f"On {r['trials']} trials that wait two seconds and compute nothing, it was {r['time']:.2f}: that is what "
            "sharing costs there."
        )
    return [" ".join(told)] if told else []


def variants(found: list[dict[str, Any]]) -> list[str]:
    """What the recipe's own choices do to a budget, where they were tried."""
    plain = {(r["experiment"], r["target"]): r for r in found if r["method"] == "budget"}
    tried = [r for r in found if r["method"] == "budget, variant" and (r["experiment"], r["target"]) in plain]
    names = list(dict.fromkeys(r["variant"] for r in tried))
    rows = []
    for (experiment, target), base in plain.items():
        mine = {r["variant"]: r for r in tried if (r["experiment"], r["target"]) == (experiment, target)}
        if not mine:
            continue
        cells = [f"{mine[n]['validation_accuracy']:.2f}" if n in mine else "" for n in names]
        best = f"{base['best_validation_accuracy']:.2f}" if "best_bytes" in base else "-"
        name = f"{base['model']}, {base['data']}"
        rows.append([name, f"{base['target_bytes']:,}", f"{base['validation_accuracy']:.2f}", *cells, best])
    words = (
        "The same budgets with bits that are given, and with the size reached at once or at half of the training "
        "(`train.arrive: 0` and `0.5`, not 0.25; pilots a quarter as long as the training, here 50 to 120 steps); "
        "accuracy on validation data:"
    )
    titles = ["network", "at most, bytes", "auto", *names, "best trial"]
    return [f"{words}\n\n{table(titles, rows)}"] if rows else []
