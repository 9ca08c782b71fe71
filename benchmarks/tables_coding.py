"""The README's tables about ECQx, its levers and its cost, and about the coder."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tables import ROOT, by_target, named, rows_of, span, table


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
    base = statistics.mean({r["seed"]: r["baseline_accuracy"] for r in found}.values())
    return (
        "**Is relevance worth its cost?** Demo network, equal budgets, three seeds, accuracy in percent on "
        f"540 test samples, float network {base:.2f} (`benchmarks/demo_controls.py`):\n\n" + by_target(found)
    )


SCALE = {
    "mlp-gsc": "MLP_GSC on keywords (4,586 test clips; features without the paper's augmentation)",
    "mlp-activity": "the same MLP on human activity (2,996 test windows of unseen people)",
    "digits-net": "the demo's network (540 test images)",
    "lenet-5": "LeNet-5 on Fashion-MNIST (10,000 test images)",
    "resnet-20": "ResNet-20 on CIFAR-10 (10,000 test images)",
    "vgg16-bn": "VGG16-BN on CIFAR-10 (10,000 test images)",
    "vgg16-folded": "VGG16 without normalisation (VGG16-BN's weights, folded) on CIFAR-10 (10,000 test images)",
    "vgg16": "VGG16 without normalisation on CIFAR-10 (10,000 test images)",
    "vgg16-frontier": "VGG16-BN trained here, on CIFAR-10 (10,000 test images)",
}


def scale() -> str:
    """Frontiers of the scale benchmark, one table per experiment that has rows."""
    parts = []
    for name, what in SCALE.items():
        found = [r for r in rows_of(f"ecqx/{name}") if not r.get("source")]
        if not found:
            continue
        floats = {}
        for r in found:
            floats.setdefault(r["seed"], r["baseline_accuracy"])  # of the methods that come first
        base = statistics.mean(floats.values())
        epochs = sorted({r["epochs"] for r in found})
        seeds = len({r["seed"] for r in found})
        for row in found:
            row["method"] = named(row)
            row["method"] += f", {row['epochs']:g} epochs" if len(epochs) > 1 else ""
        rates: dict[str, set[float | None]] = {}
        for row in found:
            rates.setdefault(row["method"], set()).add(row.get("lr"))
        for row in found:
            if len(rates[row["method"]] - {None}) > 1:
                row["method"] += f", learning rate {row['lr']:g}"
        length = f"{', '.join(f'{e:g}' for e in epochs)} epochs"
        parts.append(
            f"{what}, float network {base:.2f}, {length}, {seeds} seed{'s' if seeds > 1 else ''}:\n\n"
            + by_target(found)
        )
    if not parts:
        return ""
    return "**ECQx at scale**, test accuracy in percent at equal bytes (`benchmarks/ecqx.py`):\n\n" + "\n\n".join(parts)


def combined() -> str:
    """Channels first, then clusters, beside clusters alone at the same bytes."""
    found = rows_of("combined")
    if not found:
        return ""
    alone = [r for r in rows_of("ecqx/vgg16-bn") if not r.get("source") and r["target"] in {f["target"] for f in found}]
    rows = [
        [
            f"{100 * r['macs_left'] / r['macs']:.0f} % of the multiplications, then "
            + named(r, r["method"].split(" + ")[1]),
            f"{r['channel_epochs']:g} + {r['epochs']:g}", f"{r['narrowed_accuracy']:.2f}", f"{r['accuracy']:.2f}",
            f"{r['bytes']:,}", f"{r['ratio']:.0f}x",
        ]
        for r in sorted(found, key=lambda r: -r["bytes"])
    ] + [
        [
            named(r), f"{r['epochs']:g}", "",
            f"{r['accuracy']:.2f}", f"{r['bytes']:,}", f"{r['ratio']:.0f}x",
        ]
        for r in alone
    ]  # fmt: skip
    titles = ["VGG16-BN", "epochs", "without channels %", "test %", "bytes", "ratio"]
    return (
        "**Channels first, then clusters** (`benchmarks/combined.py`; one seed; float network "
        f"{found[0]['baseline_accuracy']:.2f}, against which ratios are):\n\n" + table(titles, rows)
    )


REMOVED = (  # options that did not pay; their rows stay
    "lambda by marginal cost", "lambda in squared steps", "P iterated", "relevance on all clusters",
    "absolute relevance",
)  # fmt: skip

STEPS = {"range": "steps of the range", "rate": "steps by the rate"}


def levers() -> str:
    """What one changed option does, against the recipe as it is, on validation and test data."""
    parts = []
    for name, what in SCALE.items():
        found = rows_of(f"ecqx/{name}-levers")
        if not found:
            continue
        for row in found:
            row["lever"] += f", damping {row['damping']:g}" if row.get("damping") else ""
            row["lever"] += ", gradual lambda" if row.get("gradual") and "gradual" not in row["lever"] else ""
        base = next(r for r in found if r["lever"] == "as it is")
        usual = _setting(base)
        rows = []
        for key in dict.fromkeys((r["lever"], *_setting(r)) for r in found):
            lever, *setting = key
            mine = [r for r in found if (r["lever"], *_setting(r)) == key]
            said = [
                f"{told:g} epochs" if isinstance(told, float) else told
                for told, plain in zip(setting, usual, strict=True) if told != plain
            ]  # fmt: skip
            shown = lever + " *" * lever.endswith(REMOVED) + (f" ({', '.join(said)})" if said else "")
            cells = [span([r[column] for r in mine]) for column in ("validation_accuracy", "accuracy")]
            zeros = f"{statistics.mean(r['sparsity'] for r in mine):.1f}"
            rows.append([shown, str(len(mine)), _gain(mine, found), *cells, zeros])
        parts.append(
            f"**What each lever does**, {what}, {base['target']}, {base['method']}, {base['bits']} bits, "
            f"{base['epochs']:g} epochs (`benchmarks/ecqx.py {name} --levers`; gain: points of validation accuracy "
            "against the recipe as it is at the same size, epochs and seeds, else of steps by the rate against "
            "those of the range; *: removed since, as it does not pay):\n\n"
            + table(["changed", "seeds", "gain", "validation %", "test %", "zeros %"], rows)
        )
    return "\n\n".join(parts)


def _setting(row: dict[str, Any]) -> tuple[str, float, str, str]:
    return row["target"], row["epochs"], row["method"], STEPS[row.get("step", "range")]


def _gain(mine: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """Mean difference on validation data, seed by seed, from the recipe as it is, or from the range's steps."""
    lever, setting = mine[0]["lever"], _setting(mine[0])
    for base in (("as it is", *setting), (lever, *setting[:3], STEPS["range"])):
        plain = {r["seed"]: r["validation_accuracy"] for r in found if (r["lever"], *_setting(r)) == base}
        gains = [r["validation_accuracy"] - plain[r["seed"]] for r in mine if r["seed"] in plain]
        if gains and base != (lever, *setting):
            return f"{statistics.mean(gains):+.2f}"
    return ""


def steps() -> str:
    """Squared error of trained weights at equal entropy, by what sets the steps of the grid."""
    found = rows_of("steps")
    if not found:
        return ""
    grids = list(dict.fromkeys(r["grid"] for r in found))
    errors = {(r["model"], r["bits_per_weight"], r["grid"]): r["error"] for r in found}
    rows = []
    for model, bits in dict.fromkeys((r["model"], r["bits_per_weight"]) for r in found):
        told = (errors[model, bits, grid] for grid in grids)
        rows.append([model, f"{bits:g}", *("-" if error is None else f"{error:.3f}" for error in told)])
    return (
        "**What sets the steps** (`benchmarks/steps.py`): squared error of trained weights, relative to their mean "
        "square in their layer, at the same entropy, without training; -: the grid does not reach that rate:\n\n"
        + table(["network", "bits a weight", *grids], rows)
    )


def overhead() -> str:
    found = rows_of("relevance_overhead")
    threads = sorted({r["threads"] for r in found})
    ratios: dict[tuple[str, ...], dict[int, str]] = {}
    for r in found:
        setting = r["model"], r["rules"], f"{r['samples']} of {r['batch']}", r["precision"], str(r["every"])
        ratios.setdefault(setting, {})[r["threads"]] = f"{r['time_ratio']:.2f}"
    rows = [[*setting, *(values.get(n, "-") for n in threads)] for setting, values in ratios.items()]
    titles = ["network", "rules", "samples", "precision", "every n-th step"]
    titles += [f"ECQx step / ECQ step, {n} thread{'s' if n > 1 else ''}" for n in threads]
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
        "steps of the range, three seeds, accuracy in percent on test data; `benchmarks/rate.py`):\n\n"
        + table(["method", "rate", *targets], rows)
        + distortion()
    )


def remainder() -> str:
    """What stays floats, in fewer significant bits."""
    found = rows_of("remainder")
    if not found:
        return ""
    bits = sorted({r["significand"] for r in found}, reverse=True)
    rows = []
    for key in dict.fromkeys((r["file"], r["floats"]) for r in found):
        mine = {r["significand"]: r for r in found if (r["file"], r["floats"]) == key}
        cells = [f"{mine[b]['bytes']:,}; {mine[b]['accuracy']:.2f}" if b in mine else "" for b in bits]
        rows.append([key[0], f"{key[1]:,}", *cells])
    return (
        "**What stays floats, in fewer significant bits** (`significand` in a recipe; finished files written again, "
        "nothing trained; bytes of the file; test accuracy; `benchmarks/remainder.py`):\n\n"
        + table(["network", "floats", "11 (float16)", *(str(b) for b in bits[1:])], rows)
    )


def distortion() -> str:
    rows = json.loads((ROOT / "results" / "rate.json").read_text()).get("distortion", [])
    models = dict.fromkeys(r["model"] for r in rows)
    told = []
    for model in models:
        ratios = ", ".join(f"{r['bytes_ratio']:.3f}" for r in rows if r["model"] == model)
        told.append(f"{model.removeprefix('cifar10_')}: {ratios}")
    return "\n\nBytes at equal squared error without training, lambda from 0.1 to 1: " + "; ".join(told) + "."
