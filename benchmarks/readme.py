"""Paste real output into the README: the demo's report, the tables of figures, and the pictures.

python benchmarks/readme.py [--demo out/demo] [--figures]
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


def by_target(found: list[dict[str, Any]]) -> str:
    """Accuracy of every method at every byte target, mean and range over the seeds."""
    targets = list(dict.fromkeys(r["target"] for r in sorted(found, key=lambda r: -r["bytes"])))
    rows = []
    for method in dict.fromkeys(r["method"] for r in found):
        mine = [[r["accuracy"] for r in found if (r["method"], r["target"]) == (method, t)] for t in targets]
        rows.append([method, *(span(values) if values else "" for values in mine)])
    ratios = [statistics.mean(r["ratio"] for r in found if r["target"] == t) for t in targets]
    return table(["scores", *(f"{t} ({q:.0f}x)" for t, q in zip(targets, ratios, strict=True))], rows)


def controls() -> str:
    found = rows_of("demo_controls")
    if not found:
        return ""
    base = statistics.mean({r["seed"]: r["baseline_accuracy"] for r in found}.values())
    return (
        "**Is relevance worth its cost?** Demo network, equal budgets, three seeds, accuracy in percent on "
        f"540 test samples, float network {base:.2f} (`benchmarks/demo_controls.py`):\n\n" + by_target(found)
    )


SCALE = {
    "mlp-gsc": "MLP_GSC on keywords (4,586 test clips; features without the paper's augmentation)",
    "mlp-activity": "the same MLP on human activity (2,996 test windows of unseen people)",
    "resnet-20": "ResNet-20 on CIFAR-10 (10,000 test images)",
}


def scale() -> str:
    """Frontiers of the scale benchmark, one table per experiment that has rows."""
    parts = []
    for name, what in SCALE.items():
        found = [r for r in rows_of(f"ecqx/{name}") if not r.get("source")]
        if not found:
            continue
        base = statistics.mean({r["seed"]: r["baseline_accuracy"] for r in found}.values())
        epochs = ", ".join(f"{e:g}" for e in sorted({r["epochs"] for r in found}))
        seeds = len({r["seed"] for r in found})
        parts.append(
            f"{what}, float network {base:.2f}, {epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''}:\n\n"
            + by_target(found)
        )
    if not parts:
        return ""
    return "**ECQx at scale**, test accuracy in percent at equal bytes (`benchmarks/ecqx.py`):\n\n" + "\n\n".join(parts)


def levers() -> str:
    """What one changed option does, against the recipe as it is, on validation and test data."""
    parts = []
    for name, what in SCALE.items():
        found = rows_of(f"ecqx/{name}-levers")
        if not found:
            continue
        base = next(r for r in found if r["lever"] == "as it is")
        rows = []
        for lever in dict.fromkeys(r["lever"] for r in found):
            mine = [r for r in found if r["lever"] == lever]
            cells = [span([r[key] for r in mine]) for key in ("validation_accuracy", "accuracy")]
            rows.append([lever, *cells, f"{statistics.mean(r['sparsity'] for r in mine):.1f}"])
        parts.append(
            f"**What each lever does**, {what}, {base['target']}, one seed (`benchmarks/ecqx.py {name} --levers`):\n\n"
            + table(["changed", "validation %", "test %", "zeros %"], rows)
        )
    return "\n\n".join(parts)


def overhead() -> str:
    ratios: dict[tuple[str, ...], list[str]] = {}
    for r in rows_of("relevance_overhead"):
        ratios.setdefault(
            (r["model"], r["rules"], f"{r['samples']} of {r['batch']}", r["precision"], str(r.get("every", 1))), []
        ).append(f"{r['time_ratio']:.2f}")
    rows = [[*setting, *values] for setting, values in ratios.items()]
    titles = ["network", "rules", "samples", "precision", "every", "ECQx step / ECQ step, one thread", "two threads"]
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
        ("Hutchinson, 50 probes, bfloat16", "hutchinson", 50, "bfloat16"),
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
        "of EHAP's criterion with the exact one, means over five seeds for random passes; time and memory relative "
        "to 200 float32 probes in the same run:\n\n" + table(titles, rows)
    )


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
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in chosen:
        groups.setdefault((r["method"], r["target_sparsity"], r.get("lam")), []).append(r)
    rows = [
        [
            method, "-" if target is None else f"{100 * target:g}", "-" if lam is None else f"{lam:g}",
            f"{statistics.mean(r['bytes'] for r in some):,.0f}", span([r["accuracy"] for r in some]),
            f"{statistics.mean(r['sparsity'] for r in some):.1f}",
        ]
        for (method, target, lam), some in groups.items()
    ]  # fmt: skip
    if not rows:
        return ""
    titles = ["method", "pruned first %", "lambda", "bytes", "accuracy", "zeros %"]
    return (
        f"**Pruned, then clustered, then coded** (demo network, {chosen[0]['epochs']:g} epochs for every row, accuracy "
        "in percent on test data):\n\n" + table(titles, sorted(rows, key=lambda row: -int(row[3].replace(",", ""))))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "out" / "demo", help="folder of a finished `make demo`")
    parser.add_argument("--figures", action="store_true", help="only the tables of figures, without the demo")
    options = parser.parse_args()
    figures = tables()
    if not options.figures:
        demo(options.demo)
    readme = (ROOT / "README.md").read_text()
    (ROOT / "README.md").write_text(pasted(readme, "figures", figures))


def demo(folder: Path) -> None:
    """The demo's report and heat maps."""
    report = jobs.load_report(folder / "report.json")
    job = jobs.prepare(recipes.load("demo"), trained=folder / "float.safetensors")
    explanation = jobs.explain(job, folder / "net.few", "plus")
    write(ROOT / "docs" / "pictures" / "heatmaps.png", plots.figure_png(plots.heatmaps(explanation), dpi=72))
    readme = pasted((ROOT / "README.md").read_text(), "demo", f"```text\n{text(report)}\n```")
    (ROOT / "README.md").write_text(readme)


def tables() -> str:
    """Every table of figures, and the picture that goes with one of them."""
    figures = [cifar(), controls(), scale(), levers(), overhead(), coder(), rates(), pruning(), curvatures()]
    found = rows_of("demo_controls")
    if found:
        base = statistics.mean(r["baseline_accuracy"] for r in found)
        write(
            ROOT / "docs" / "pictures" / "demo_controls.png",
            plots.figure_png(plots.accuracy_v_bytes(found, baseline=base), dpi=90),
        )
        figures[1] += "\n\n![Accuracy over bytes for every method](docs/pictures/demo_controls.png)"
    return "\n\n".join(f for f in figures if f)


if __name__ == "__main__":
    main()
