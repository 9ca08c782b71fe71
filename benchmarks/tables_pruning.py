"""The README's tables about pruning, and about the curvature that channels are pruned by."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from tables import rows_of, span, table


def curvatures() -> str:
    found = [r for r in rows_of("curvature") if "versus" in r]
    if not found:
        return ""
    models = list(dict.fromkeys(r["model"] for r in found))

    def each(method: str, draws: int, precision: str, cell: Callable[[dict[str, Any]], str]) -> str:
        wanted = (method, draws, precision)
        rows = {r["model"]: r for r in found if (r["method"], r["draws"], r["precision"]) == wanted}
        return " / ".join(cell(rows[m]) if m in rows else "-" for m in models)

    def ratio(r: dict[str, Any], key: str, digits: int) -> str:
        return f"{r[key]:.{digits}f}" if key in r else "-"

    rows = []
    for title, *setting in (
        ("exact Gauss-Newton", "exact", 1, "float32"),
        ("**sketched, one pass**", "sketched", 1, "float32"),
        ("sketched, two passes", "sketched", 2, "float32"),
        ("sketched, five passes", "sketched", 5, "float32"),
        ("sampled labels, one pass", "sampled", 1, "float32"),
        ("sampled labels, five passes", "sampled", 5, "float32"),
        ("true labels (empirical Fisher)", "empirical", 1, "float32"),
        ("Hutchinson, 1 probe", "hutchinson", 1, "float32"),
        ("Hutchinson, 10 probes", "hutchinson", 10, "float32"),
        ("Hutchinson, 50 probes", "hutchinson", 50, "float32"),
        ("Hutchinson, 200 probes", "hutchinson", 200, "float32"),
        ("magnitude alone", "magnitude", 0, "float32"),
        ("EHAP's released schedule, 300 probes", "released schedule", 300, "float32"),
    ):
        key = (str(setting[0]), int(setting[1]), str(setting[2]))
        timed = key[0] != "magnitude"
        rows.append([
            title,
            each(*key, lambda r: f"{r['rank_correlation']:.3f}"),
            each(*key, lambda r: f"{100 * r['agreement']:.0f}"),
            each(*key, lambda r: f"{100 * r['negative']:.0f}"),
            each(*key, lambda r: ratio(r, "time_ratio", 4)) if timed else "0",
            each(*key, lambda r: ratio(r, "peak_ratio", 2)),
        ])  # fmt: skip
    channels = " / ".join(f"{r['channels']:,}" for r in found if r["method"] == "exact")
    titles = ["estimator", "rank correlation", "same half pruned %", "negative traces %", "time", "memory"]
    return (
        f"**Which channels matter: estimators of the Hessian trace** ({' / '.join(models)} with {channels} channels, "
        f"{found[0]['images']} training images of CIFAR-10, one thread; `benchmarks/curvature.py`). Rank correlation "
        "of EHAP's criterion with the exact one, means over five seeds for random passes; time relative to 200 float32 "
        f"probes in the same run; peak memory above network and data, {found[0]['peak_images']} images, relative to "
        "Hutchinson's in float32:\n\n" + table(titles, rows) + precisions(found) + larger()
    )


def precisions(found: list[dict[str, Any]]) -> str:
    """Low precision against float32 on the same probes, in a sentence each."""
    told = []
    for r in found:
        if "time_v_float32" in r:
            memory = f", {r['peak_ratio']:.2f} of its memory" if "peak_ratio" in r else ""
            probes = f"{r['draws']} probe" + "s" * (r["draws"] > 1)
            told.append(
                f"{r['model']}, {r['precision']}, {probes}: rank correlation {r['same_probes_rank_correlation']:.3f}, "
                f"{r['time_v_float32']:.2f} of float32's time{memory}"
            )
    return "\n\nHutchinson in low precision against float32 on the same probes: " + "; ".join(told) + "."


def larger() -> str:
    """The cheap estimators on more images."""
    found = [r for r in rows_of("curvature") if "versus" not in r and r["method"] != "exact"]
    told = [
        f"{r['model']}, {r['method']}: {r['rank_correlation']:.3f} (worst of {r['seeds']} seeds "
        f"{r['rank_correlation_min']:.3f})"
        for r in found
    ]
    return f"\n\nOne pass over {found[0]['images']} images, rank correlation: " + "; ".join(told) + "."


def pruning() -> str:
    """Everything in results/pruning.json, by experiment; what has not been run is left out."""
    found = rows_of("pruning")
    parts = [ranking(found), collapsed(found), pruned_and_clustered(found), repaired(found), selected(found)]
    return "\n\n".join(part for part in parts if part)


def ranking(found: list[dict[str, Any]]) -> str:
    told = []
    for experiment in ("resnet-32", "mobilenet-v2", "lenet", "fastgrnn"):
        chosen = [r for r in found if r["experiment"] == experiment]
        targets = sorted({r["target_sparsity"] for r in chosen if r["method"] != "dense"})
        rows = []
        for method in dict.fromkeys(r["method"] for r in chosen):
            cells = [method]
            for target in targets:
                some = [r for r in chosen if r["method"] == method and r["target_sparsity"] == target]
                if method == "dense":
                    some = [r for r in chosen if r["method"] == "dense"]
                left = statistics.mean(r["macs_left"] / r["macs"] for r in some) if some else 0.0
                size = statistics.mean(r["bytes"] for r in some) if some else 0
                cells += (
                    [span([r["accuracy"] for r in some]), f"{100 * left:.1f}", f"{size:,.0f}"] if some else ["-"] * 3
                )
            rows.append(cells)
        if not rows:
            continue
        one = chosen[0]
        base = statistics.mean(r["baseline_accuracy"] for r in chosen)
        seeds = len({r["seed"] for r in chosen})
        floors = {r["floor"] for r in chosen if r["floor"]}
        titles = ["method"]
        for target in targets:
            titles += [f"{100 * target:g} % zeros: accuracy", "multiplications left %", "bytes"]
        told.append(
            f"**Pruning {one['model']}, {one['data']}** ({one['epochs']:g} epochs of fine-tuning for every method, "
            f"{seeds} seed{'s' if seeds > 1 else ''}, float network {base:.2f} %; accuracy on test data; zeros over "
            f"the {one['weights']:,} weights of layers; floor {', '.join(sorted(floors)) or '-'} "
            "of them per layer; dense: the same training without pruning):\n\n" + table(titles, rows)
        )
    return "\n\n".join(told)


def collapsed(found: list[dict[str, Any]]) -> str:
    told = []
    for experiment in ("collapse", "extreme"):
        chosen = [r for r in found if r["experiment"] == experiment]
        targets = sorted({r["target_sparsity"] for r in chosen})
        rows = []
        for method in dict.fromkeys(r["method"] for r in chosen):
            cells = [method]
            for target in targets:
                some = [r for r in chosen if r["method"] == method and r["target_sparsity"] == target]
                good = [r for r in some if "accuracy" in r]
                empty = ", ".join(str(r["collapsed_layers"]) for r in good)
                least = min((r["fewest_survivors"] for r in good), default=0)
                cells += [f"{span([r['accuracy'] for r in good])}; {empty}; {least}" if good else "refused"]
            rows.append(cells)
        if rows:
            floor = next((r["floor"] for r in chosen if r["floor"]), "-")
            told.append(
                f"**Layers at the highest sparsities** ({chosen[0]['model']} on {chosen[0]['data']}, one-shot, "
                f"{chosen[0]['epochs']:g} epochs, floor {floor}; test accuracy; empty layers in each run; fewest "
                "weights left in a layer in any run):\n\n"
                + table(["method", *(f"{100 * t:g} %" for t in targets)], rows)
            )
    return "\n\n".join(told)


def pruned_and_clustered(found: list[dict[str, Any]]) -> str:
    chosen = [r for r in found if r["experiment"] == "pipeline"]
    if not chosen:
        return ""
    sizes = list(dict.fromkeys(r["target"] for r in chosen if "target" in r))
    rows = []
    for method, share in dict.fromkeys((r["method"], r.get("target_sparsity")) for r in chosen):
        mine = [r for r in chosen if (r["method"], r.get("target_sparsity")) == (method, share)]
        cells = [method, "-" if share is None else f"{100 * share:g}"]
        cells += [span(some) if (some := [r["accuracy"] for r in mine if r.get("target") == s]) else "-" for s in sizes]
        free = [r for r in mine if "target" not in r]
        size = statistics.mean(r["bytes"] for r in free) if free else 0
        cells.append(f"{span([r['accuracy'] for r in free])} at {size:,.0f}" if free else "-")
        rows.append(cells)
    titles = ["method", "pruned first %", *sizes, "without a target, bytes"]
    return (
        f"**Pruned, then clustered, then coded** (demo network, steps of the range, "
        f"{chosen[0]['epochs']:g} epochs for every row, accuracy "
        "in percent on test data at equal bytes of the file):\n\n" + table(titles, rows)
    )


def repaired(found: list[dict[str, Any]]) -> str:
    chosen = [r for r in found if r["experiment"] == "repair"]
    columns = list(dict.fromkeys((r["model"], r["target_sparsity"]) for r in chosen))
    known = {(r["model"], r["target_sparsity"], r["method"]): f"{r['accuracy']:.2f}" for r in chosen}
    methods = dict.fromkeys(r["method"] for r in chosen)
    rows = [[method, *(known.get((*column, method), "-") for column in columns)] for method in methods]
    if not rows:
        return ""
    titles = ["repair", *(f"{model}, {100 * target:g} % zeros" for model, target in columns)]
    return "**Repair without training** (one-shot Global MP; test accuracy in percent):\n\n" + table(titles, rows)


def selected(found: list[dict[str, Any]]) -> str:
    told = []
    for r in (r for r in found if r["experiment"] == "selection"):
        words = (
            f"{r['weights']:,} weights in {r['seconds']:.1f} s on {r['threads']} thread, with "
            f"{100 * r['peak_share']:.1f} % of their bytes as extra memory to find the threshold"
        )
        if "speedup" in r:
            same = "the same mask" if r["same_mask"] else "ANOTHER mask"
            words += f", {r['speedup']:.1f} times as fast as `global_unstructured` of torch ({same})"
        told.append(words)
    return "Exact global selection: " + "; ".join(told) + "." if told else ""
