"""Paste real output into the README: the demo's report, the tables of figures, and the pictures.

python benchmarks/readme.py [--demo out/demo]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewbits import job as jobs
from fewbits import recipe as recipes
from fewbits.codec import write
from fewbits.report import plots
from fewbits.report.table import text

ROOT = Path(__file__).parent.parent


def pasted(readme: str, mark: str, content: str) -> str:
    """The README with everything between two marks replaced."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    assert pattern.search(readme), f"README lacks the mark {mark}"
    return pattern.sub(lambda m: f"{m[1]}{content.strip()}\n{m[2]}", readme)


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


def cifar() -> str:
    rows = [
        [
            r["model"], f"{r['baseline_accuracy']:.2f}", f"{r['accuracy']:.2f}", f"{r['bytes']:,}",
            f"{r['ratio']:.1f}x", f"{r['sparsity']:.1f}", f"{r['epochs']:g}",
        ]
        for r in rows_of("first_cifar")
    ]  # fmt: skip
    titles = ["network, CIFAR-10", "accuracy before %", "after %", "bytes", "ratio", "zeros %", "epochs"]
    intro = (
        "**Real networks that nobody here trained** (`benchmarks/first_cifar.py`; one seed, short schedules on "
        "two CPU cores; accuracy on the 10,000 test images):\n\n"
    )
    return intro + table(titles, rows) if rows else ""


def controls() -> str:
    found = rows_of("demo_controls")
    if not found:
        return ""
    targets = list(dict.fromkeys(r["target"] for r in sorted(found, key=lambda r: -r["bytes"])))
    methods = list(dict.fromkeys(r["method"] for r in found))
    rows = []
    for method in methods:
        cells = [method]
        for target in targets:
            cells.append(span([r["accuracy"] for r in found if (r["method"], r["target"]) == (method, target)]))
        rows.append(cells)
    base = statistics.mean({r["seed"]: r["baseline_accuracy"] for r in found}.values())
    ratios = [statistics.mean(r["ratio"] for r in found if r["target"] == t) for t in targets]
    titles = ["scores", *(f"{t} ({q:.0f}x)" for t, q in zip(targets, ratios, strict=True))]
    return (
        "**Is relevance worth its cost?** Demo network, equal budgets, three seeds, accuracy in percent on "
        f"540 test samples, float network {base:.2f} (`benchmarks/demo_controls.py`):\n\n" + table(titles, rows)
    )


def overhead() -> str:
    ratios: dict[tuple[str, ...], list[str]] = {}
    for r in rows_of("relevance_overhead"):
        ratios.setdefault((r["model"], r["rules"], f"{r['samples']} of {r['batch']}", r["precision"]), []).append(
            f"{r['time_ratio']:.2f}"
        )
    rows = [[*setting, *values] for setting, values in ratios.items()]
    titles = ["network", "rules", "samples", "precision", "ECQx step / ECQ step, one thread", "two threads"]
    return "**What relevance costs** (`benchmarks/relevance_overhead.py`):\n\n" + table(titles, rows) if rows else ""


def coder() -> str:
    path = ROOT / "results" / "codec.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    rows = []
    for r in found["rows"]:
        cells = [r["model"] + ("" if r["seen"] else " *"), f"{r['weights']:,}", f"{r['sparsity']:.0f}"]
        cells += [f"{r['nncodec']['bytes']:,}"]
        for profile in ("small", "fast"):
            p = r[profile]
            cells += [f"{p['bytes_ratio']:.3f}", f"{p['encode_speed_ratio']:.1f}", f"{p['decode_speed_ratio']:.2f}"]
        rows.append(cells)
    totals = found["total_bytes_ratio"]
    rows.append(["all bytes", "", "", "", f"{totals['small']:.3f}", "", "", f"{totals['fast']:.3f}", "", ""])
    titles = [
        "levels of", "weights", "zeros %", "NNCodec, bytes",
        "small: bytes", "encode", "decode", "fast: bytes", "encode", "decode",
    ]  # fmt: skip
    return (
        "**The entropy coder against the MPEG standard's** (NNCodec 2.1.3, ISO/IEC 15938-17, its parameter "
        "optimisation on; same integers, whole files; `benchmarks/codec.py`). Bytes relative to NNCodec's, less is "
        "better; speed on one thread relative to NNCodec's, more is better. Networks with a star were not looked at "
        "while the coder was designed:\n\n" + table(titles, rows)
    )


def rates() -> str:
    found = rows_of("rate")
    if not found:
        return ""
    targets = list(dict.fromkeys(r["target"] for r in sorted(found, key=lambda r: -r["bytes"])))
    rows = []
    for method in dict.fromkeys(r["method"] for r in found):
        for rate in ("entropy", "coder"):
            chosen = [r for r in found if (r["method"], r["rate"]) == (method, rate)]
            rows.append([method, rate, *(span([r["accuracy"] for r in chosen if r["target"] == t]) for t in targets)])
    return (
        "**The coder's own code length as the rate term** (`rate: coder` against first-order entropy; demo network, "
        "three seeds, accuracy in percent on test data; `benchmarks/rate.py`):\n\n"
        + table(["method", "rate", *targets], rows)
        + distortion()
    )


def distortion() -> str:
    rows = json.loads((ROOT / "results" / "rate.json").read_text()).get("distortion", [])
    models = dict.fromkeys(r["model"] for r in rows)
    told = []
    for model in models:
        ratios = ", ".join(f"{r['bytes_ratio']:.3f}" for r in rows if r["model"] == model)
        told.append(f"{model.removeprefix('cifar10_')}: {ratios}")
    return "\n\nBytes at equal squared error without training, lambda from 0.1 to 1: " + "; ".join(told) + "."


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


def figures() -> str:
    """All tables, one after the other."""
    parts = [cifar(), controls(), overhead(), coder(), rates(), curvatures()]
    if parts[1]:
        parts[1] += "\n\n![Accuracy over bytes for every method](docs/pictures/demo_controls.png)"
    return "\n\n".join(part for part in parts if part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "out" / "demo", help="folder of a finished `make demo`")
    options = parser.parse_args()
    report = jobs.load_report(options.demo / "report.json")
    job = jobs.prepare(recipes.load("demo"), trained=options.demo / "float.safetensors")
    explanation = jobs.explain(job, options.demo / "net.few", "plus")
    pictures = ROOT / "docs" / "pictures"
    write(pictures / "heatmaps.png", plots.figure_png(plots.heatmaps(explanation), dpi=72))
    found = rows_of("demo_controls")
    if found:
        base = statistics.mean(r["baseline_accuracy"] for r in found)
        write(
            pictures / "demo_controls.png",
            plots.figure_png(plots.accuracy_v_bytes(found, baseline=base), dpi=90),
        )
    readme = (ROOT / "README.md").read_text()
    readme = pasted(readme, "demo", f"```text\n{text(report)}\n```")
    readme = pasted(readme, "figures", figures())
    (ROOT / "README.md").write_text(readme)


if __name__ == "__main__":
    main()
