"""Published figures of machines against what fewbits says of the same layers: no network is run."""

import json
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import torch

from benchmarks.kinds.vela import versions
from benchmarks.unit import Place, Row, Unit
from fewbits.hardware import Known, Layer, Machine, machine_of, price
from fewbits.report.correlation import spearman

MASKS = Path(__file__).parents[2] / "tests" / "unit" / "hardware" / "published" / "eyeriss_v2.json"


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: the figure, ours, and how far it is off."""
    asked = unit.options
    if "versions" in asked:
        return [unit.labels | row for row in ranks(asked)]
    layers = [layer for spec in asked["layers"] for layer in layers_of(spec)]
    machine = changed(machine_of(asked["machine"]), asked.get("array", {}))
    found = figure(layers, machine, asked["figure"], asked.get("batch", 1))
    return [
        unit.labels | {
            "accelerator": asked["machine"], "figure": asked["figure"], "layers": len(layers),
            "published": asked["published"], "found": found,
            "error_percent": 100 * (found / asked["published"] - 1), "source": asked["source"],
        }
    ]  # fmt: skip


def ranks(asked: Row) -> list[Row]:
    """Cycles of Vela beside ours for versions of a network: how multiplications and ours rank them, and ratios."""
    found = versions(machine=asked["machine"], **asked["versions"])
    cycles, price, macs = (torch.tensor([float(row[key]) for row in found]) for key in ("vela", "price", "macs"))
    figures = {
        "rank correlation of cycles with its cycles": spearman(price, cycles),
        "rank correlation of multiplications with its cycles": spearman(macs, cycles),
        "cycles over its cycles, geometric mean": float((price / cycles).log().mean().exp()),
        "cycles over its cycles, farthest version": max((price / cycles).tolist(), key=lambda ratio: abs(log(ratio))),
    }
    return [
        {
            "accelerator": asked["machine"], "figure": figure, "layers": len(found), "published": asked["published"],
            "found": value, "error_percent": 100 * ((value or 0.0) / asked["published"] - 1), "source": asked["source"],
        }
        for figure, value in figures.items()
    ]  # fmt: skip


def changed(machine: Machine, constants: dict[str, Any]) -> Machine:
    """The machine with other numbers in its array, such as that of a golden case."""
    values = machine.model_dump(mode="json")
    for key, value in constants.items():
        values["array"][key] = {**values["array"][key], "value": value} if isinstance(value, int) else value
    return machine_of(values)


def figure(layers: list[Layer], machine: Machine, what: str, batch: int) -> float:
    """A figure of all layers together."""
    found = price(layers, machine, batch)
    outer = machine.outer.name
    return {
        "compute cycles": sum(layer.compute_cycles for layer in found.layers) * batch,
        "cycles": found.cycles * batch,
        "samples a second": 1 / found.seconds,
        "microjoules": 1e6 * (found.joules or 0.0) * batch,
        "milliwatts": 1e3 * (found.joules or 0.0) / found.seconds,
        "percent of energy in ADCs": 1e-10 * found.energy_by_part.get("ADC", 0.0) / (found.joules or 1.0),
        "outer numbers a multiplication": found.bytes_by_memory[outer] / 2 / found.macs,  # of 16 bits
    }[what]


def layers_of(spec: Row) -> list[Layer]:
    """Layers as an experiment writes them: a convolution, a product, or those of published zeros."""
    if "masks" in spec:
        return [masked(name) for name in spec["masks"]]
    if "measured" in spec:  # the products of all layers, as a processing element was measured
        cycles = json.loads(MASKS.read_text())["cycles"]
        return [replace(made((512, 512, 1, 16, 16), name), products=float(n)) for name, n in cycles.items()]
    shape = spec.get("conv") or spec["product"]
    layer = made(tuple(shape), "layer", spec.get("stride", 1), spec.get("groups", 1), "conv" in spec)
    weights, inputs = spec.get("weights", 1), spec.get("inputs", 1)
    if "pattern" in spec:
        kept, of = spec["pattern"]
        mask = (torch.arange(layer.inputs) % of < kept).repeat(layer.outputs, 1)
        return [replace(layer, mask=mask, nonzero=int(mask.sum()), products=float(int(mask.sum()) * layer.positions))]
    known = Known.DENSE if weights == inputs == 1 else Known.DENSITY
    return [
        replace(layer, nonzero=weights * layer.weights, input_density=inputs, products=weights * inputs * layer.macs,
                weights_known=known, inputs_known=known)
    ]  # fmt: skip


def made(shape: tuple[int, ...], name: str, stride: int = 1, groups: int = 1, conv: bool = False) -> Layer:
    """Outputs, inputs, and of a convolution kernel, size of its input and of its output; of a product its positions."""
    outputs, inputs, *rest = shape
    kernel = (rest[0],) * 2 if conv else ()
    sizes = ((rest[1],) * 2, (rest[2],) * 2) if conv else ((rest[-1],), (rest[-1],))
    weights = outputs * inputs // groups * (rest[0] ** 2 if conv else 1)
    macs = weights * rest[-1] ** (2 if conv else 1)
    return Layer(
        name, 1, outputs, inputs, groups, kernel, (stride,) * len(kernel), (1,) * len(kernel), *sizes,
        weights, weights, 8, 0, None, 1.0, float(macs), Known.DENSE, Known.DENSE,
    )  # fmt: skip


def masked(name: str) -> Layer:
    """A layer of Eyeriss v2's study whose zeros are published, by how many of each input channel there are."""
    found = json.loads(MASKS.read_text())["layers"][name]
    pairs = list(zip(found["inputs"], found["weights"], strict=True))
    layer = made((found["outputs"], len(pairs), found["positions"]), name)
    return replace(layer, products=float(sum(a * w for a, w in pairs)), nonzero=sum(w for _, w in pairs))
