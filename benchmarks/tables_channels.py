"""The README's table about removed channels."""

from __future__ import annotations

import statistics
from typing import Any

from published import CHANNELS
from tables import rows_of, span, table

NAMES = {
    "magnitude measured per mac": "**magnitude, layers measured** (default)",
    "output measured per mac": "output, layers measured",
    "output per mac": "output, per multiplication",
    "output per mac, inside": "output, per multiplication, inside blocks",
    "output per mac, 3 rounds": "output, per multiplication, three rounds",
    "ehap": "EHAP (curvature)",
    "ehap per mac": "EHAP, per multiplication",
    "taylor per mac": "Taylor, per multiplication",
    "magnitude per mac": "magnitude, per multiplication",
    "tp group norm": "Torch-Pruning, group norm, inside blocks",
    "tp taylor": "Torch-Pruning, Taylor, inside blocks",
    "tp hessian": "Torch-Pruning, Hessian, inside blocks",
}


def channels() -> str:
    """Accuracy at equal multiplications, before and after equal fine-tuning; published figures in a sentence."""
    found = rows_of("channels")
    return "\n\n".join(
        part for part in (*(_same(found, *k) for k in dict.fromkeys(map(_training, found))), quoted()) if part
    )


def _training(row: dict[str, Any]) -> tuple[str, float, float]:
    """Network, epochs and weight of the teacher: what rows of one table have in common."""
    return row["model"], row["epochs"], row.get("distill", 0.0)


def _same(found: list[dict[str, Any]], model: str, epochs: float, distill: float) -> str:
    rows = [r for r in found if _training(r) == (model, epochs, distill) and ("accuracy" in r or not epochs)]
    if not rows:
        return ""
    targets = sorted({r["target"] for r in rows} - {"1x"})
    lines = []
    for method in dict.fromkeys(r["method"] for r in rows if r["method"] != "dense"):
        title = NAMES.get(method, method)
        cells = [title if model.startswith("resnet") else title.removesuffix(", inside blocks")]  # others have none
        for target in targets:
            some = [r for r in rows if (r["method"], r["target"]) == (method, target)]
            if not some:
                cells += ["-"] * 3
                continue
            size = statistics.mean(r["parameters"] / r["parameters_dense"] for r in some)
            before = [r["accuracy_before_training"] for r in some if "accuracy_before_training" in r]
            cells += [
                span(before) if before else "-",
                span([r["accuracy"] for r in some]) if epochs else "-",
                f"{100 * size:.0f}",
            ]
        seconds = [r["criterion_seconds"] for r in rows if r["method"] == method and "criterion_seconds" in r]
        lines.append([*cells, f"{statistics.mean(seconds):.1f}" if seconds else "-"])
    titles = ["criterion"]
    for target in targets:
        titles += [f"{target}: before training", "accuracy", "parameters left %"]
    one = rows[0]
    dense = [r for r in rows if r["method"] == "dense"]
    told = (
        f"; without surgery, the same training gives {span([r['accuracy'] for r in dense])}" if dense and epochs else ""
    )
    taught = "on the float network's answers" if distill else "on the true classes"
    length = f"{epochs:g} epochs of training {taught}" if epochs else "no training, recalibrated statistics"
    whole = [f"{r['accuracy_before_training']:.2f}" for r in dense]
    start = f", float network {whole[0]} % with recalibrated statistics" if dense else ""
    return (
        f"**Removing channels of {model}**, CIFAR-10, to 2.1 and 2.57 times fewer multiplications "
        f"(`benchmarks/channels.py`; {length} for every row, {one['samples']} images for "
        f"the criterion, mean and range over the seeds there are; test accuracy in percent{start}{told}; processor "
        "seconds of the criterion, of Torch-Pruning with its pruner):\n\n" + table([*titles, "seconds"], lines)
    )


def quoted() -> str:
    """What others report, with far more training."""
    if not rows_of("channels"):
        return ""
    told = [
        f"{r['method']} {r['accuracy']:.2f} at {r['fewer_macs']:g}x (from {r['baseline_accuracy']:.2f})"
        for r in CHANNELS
    ]
    return (
        "Published for ResNet-56 on CIFAR-10, with full training schedules, so not comparable with the table above: "
        f"{'; '.join(told)} ({CHANNELS[0]['source']})."
    )
