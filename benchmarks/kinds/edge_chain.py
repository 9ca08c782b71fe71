"""Clusters with INT8 activations on the way to hardware: file, ONNX Runtime, ``.tflite`` and an Ethos-U.

Extras ``onnx``, ``tflite`` and ``ethos``. Nothing is chosen by these figures.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kinds.recipe import prepared, say
from benchmarks.unit import Place, Row, Unit
from fewbits import job as jobs
from fewbits.deploy.latency import measure_latency
from fewbits.deploy.onnx import to_onnx
from fewbits.deploy.vela import to_vela
from fewbits.pipeline import Compressed
from fewbits.recipe import Assign
from fewbits.report.sizes import entropy

FLOATS, CLUSTERS, INT8 = "clusters, float activations", "clusters, INT8 activations", "INT8"


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each way of numbers, from one float network; the two of clusters train in the same way."""
    assert unit.recipe is not None
    job, asked = prepared(unit, place), unit.options
    calibrated = {"calibrate": asked["calibrate"]}
    ways = {
        FLOATS: unit.recipe,
        CLUSTERS: unit.recipe.updated(activations=calibrated),
        INT8: unit.recipe.updated(assign=Assign(method="int8"), train=None, significand=None, activations=calibrated),
    }
    made = {
        way: jobs.run(replace(job, recipe=place.located(recipe)), place.work / unit.key / str(number), say=say)
        for number, (way, recipe) in enumerate(ways.items())
    }
    shared = unit.settings | {"task": "chain", "split": "test", "accelerator": asked["accelerator"]}
    rows = {way: shared | {"method": way} | written(small) for way, small in made.items()}
    for row in rows.values():
        row["of_clusters"] = row["bytes"] / rows[FLOATS]["bytes"]
    inputs = next(iter(job.dataset.loader("test", asked["samples"])))[0]
    whole = {way: made[way].into(job.skeleton()) for way in (CLUSTERS, INT8)}
    for way, network in whole.items():
        rows[way] |= on_hardware(network, inputs, made[way], asked["accelerator"])
    for way, row in timed({"float32": job.network} | whole, made, inputs, asked["rounds"]).items():
        rows[way] |= row
    return list(rows.values())


def written(small: Compressed) -> Row:
    """The file, and what it lost against the float network."""
    told = small.report.row()
    kept = ("bytes", "float_bytes", "ratio", "accuracy", "baseline_accuracy", "sparsity", "entropy")
    return {key: told[key] for key in kept if key in told} | {"identical": small.report.identical}


def on_hardware(network: nn.Module, inputs: Tensor, small: Compressed, accelerator: str) -> Row:
    """LiteRT's agreement with torch, and what Vela makes of the weights, beside their zero-order entropy."""
    with tempfile.TemporaryDirectory() as folder:
        found = to_vela(network, inputs, Path(folder) / "net.tflite", plan=small.plan, accelerator=accelerator)
    bits, count = entropy_bits(small)
    lite = found.tflite
    return {
        "samples": len(inputs), "tflite_bytes": lite.bytes, "same_levels": 100 * lite.equal,
        "near_levels": 100 * lite.near, "same_class": 100 * lite.same_class,
        "weights": found.weights, "weight_bytes": found.weight_bytes, "entropy_bytes": bits / 8,
        "entropy_bits": bits / count, "of_entropy": 8 * found.weight_bytes / bits,
        "flash": found.flash, "sram": found.sram, "cycles": found.cycles, "npu_cycles": found.npu_cycles,
        "processor_operations": found.cpu,
    }  # fmt: skip


def entropy_bits(small: Compressed) -> tuple[float, int]:
    """Bits of all weights by the entropy of each tensor's levels, and how many weights.

    Vela counts more of them where it fills up channels.
    """
    weights = [entry.levels for entry in small.plan.affine.values() if entry.levels.dim() > 1]
    return sum(entropy(levels) * levels.numel() for levels in weights), sum(map(torch.numel, weights))


def timed(networks: dict[str, nn.Module], made: dict[str, Compressed], inputs: Tensor, rounds: int) -> dict[str, Row]:
    """Milliseconds in ONNX Runtime, the models taking turns, on one thread."""
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, network in networks.items():
            file = Path(folder) / "net.onnx"
            to_onnx(network, inputs[:16], file, plan=made[way].plan if way in made else None)
            models[way] = file.read_bytes()
    rows: dict[str, Row] = {CLUSTERS: {}, INT8: {}}
    seconds: dict[Any, float] = {}
    for found in measure_latency(models, batches=(1, 64), rounds=rounds):
        seconds[found.name, found.batch] = found.seconds
        if found.name in rows:
            rows[found.name] |= {
                f"seconds_{found.batch}": found.seconds, f"speedup_{found.batch}": found.speedup,
                "onnx_bytes": found.bytes,
            }  # fmt: skip
    for way, row in rows.items():
        row |= {f"speed_of_int8_{batch}": seconds[INT8, batch] / seconds[way, batch] for batch in (1, 64)}
    return rows
