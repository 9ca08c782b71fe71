"""The README's tables about INT8 and ONNX Runtime."""

from __future__ import annotations

import json
from typing import Any

from tables import rows_of, span, table


def int8() -> str:
    found = rows_of("int8")
    parts = [
        _accuracy([r for r in found if r["task"] == "accuracy"]),
        _latency([r for r in found if r["task"] == "latency"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    kind = tuple(row.get(k) for k in ("model", "method", "multiple", "recovery_epochs", "recovery_distill"))
    return (*kind, json.dumps(row.get("augment")))


def _accuracy(found: list[dict[str, Any]]) -> str:
    if not found:
        return ""
    rows = []
    for kind in dict.fromkeys(map(_kind, found)):
        model, method, *_ = kind
        mine = [r for r in found if _kind(r) == kind]
        first = mine[0]
        trained = "one epoch of training" if method == "int8" else "calibrated only"
        if first.get("recovery_epochs"):
            left = 100 * first["macs_left"] / first["macs"]
            trained = (
                f"{left:.0f} % of the multiplications (channels in {first['multiple']}s), "
                f"{first['recovery_epochs']:g} epochs of training{_moved(first)}, then calibrated"
            )
        rows.append(
            [
                model, trained, str(len(mine)), f"{first['baseline_accuracy']:.2f}",
                span([r["accuracy"] for r in mine]), span([r["onnx_accuracy"] for r in mine]),
                f"{first['bytes']:,}", f"{first['onnx_bytes']:,}", f"{first['dense_onnx_bytes']:,}",
            ]
        )  # fmt: skip
    accuracies = ["float32 %", "INT8 %", "in ONNX Runtime %"]
    titles = ["network", "INT8", "seeds", *accuracies, ".few, bytes", "ONNX, bytes", "float32 ONNX, bytes"]
    title = (
        "**INT8** weights and activations, CIFAR-10 test data (`benchmarks/int8.py`; mean and range over the seeds):"
    )
    return f"{title}\n\n{table(titles, rows)}"


def _moved(row: dict[str, Any]) -> str:
    """How images were augmented, where it is not what the data set is customarily trained with."""
    how = row.get("augment")
    return f" on images mirrored and moved by up to {how['padding']} pixels" if isinstance(how, dict) else ""


def _latency(found: list[dict[str, Any]]) -> str:
    if not found:
        return ""
    rows = []
    for model, method in dict.fromkeys((r["model"], r["method"]) for r in found):
        mine = {r["batch"]: r for r in found if (r["model"], r["method"]) == (model, method)}
        cells = []
        for batch in (1, 64):
            r = mine[batch]
            cells += [f"{1000 * r['seconds']:.2f}", f"{r['speedup']:.2f}x"]
        macs = mine[1]["macs_ratio"]
        rows.append([model, method, "1x" if macs == 1 else f"1/{macs:.2f}", f"{mine[1]['onnx_bytes']:,}", *cells])
    titles = [
        "network",
        "model",
        "multiplications",
        "ONNX, bytes",
        "batch 1, ms",
        "speed-up",
        "batch 64, ms",
        "speed-up",
    ]
    title = (
        "**Latency in ONNX Runtime**, one thread, models taking turns in one run on a busy machine; speed-up over the "
        "same network in float32. The untrained networks stand for channel pruning, and only their time means "
        "something: widths that are no multiples of 16 cost INT8 more than they save. VGG16's float32 weights exceed "
        "the caches, so at batch 1 memory is timed, and the ratio varies from run to run:"
    )
    return f"{title}\n\n{table(titles, rows)}"
