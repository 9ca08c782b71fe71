"""Latency in ONNX Runtime on this processor beside ``price``: of single layers, and of versions of one network.

One thread runs a model, and its own time is read, without what other processes take of the machine meanwhile.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fewbits as fb
from benchmarks.kinds.latency import float_and_int8
from benchmarks.unit import Place, Row, Unit
from fewbits import zoo
from fewbits.deploy.latency import measure_latency
from fewbits.deploy.onnx import to_onnx
from fewbits.hardware import layers, machine_of, price
from fewbits.pipeline import layers_of
from fewbits.recipe import make
from fewbits.report.correlation import spearman

NUMBERS = ("float32", "int8")
CHAINS = (2, 8)  # layers in a row: the difference is six layers, without the ends of the network


def measure(unit: Unit, place: Place) -> list[Row]:
    """Of single layers a row for each kind of numbers; of versions a row for each way to rank them."""
    return [
        unit.settings | {"split": "none"} | row for row in (single if "layer" in unit.options else ranks)(unit, place)
    ]


def single(unit: Unit, place: Place) -> list[Row]:
    """Microseconds of a layer, as a sixth of what six more of them take, and ours of the same layer."""
    asked = unit.options
    channels, size, kernel, groups = asked["layer"]
    models: dict[str, bytes] = {}
    for count in CHAINS:
        net = chain(count, channels, kernel, groups)
        found = float_and_int8(net, (channels, size, size), place.work / "layer.onnx")
        models |= {f"{count} {numbers}": data for numbers, data in zip(NUMBERS, found, strict=True)}
    times = seconds_of(models, asked["rounds"])
    one = layers(chain(1, channels, kernel, groups), (channels, size, size))
    few, many = CHAINS
    rows = []
    for numbers in NUMBERS:
        seconds = (times[f"{many} {numbers}"] - times[f"{few} {numbers}"]) / (many - few)
        ours = price(one, machine_of(asked["machines"][numbers])).seconds
        rows.append({"task": "layer", "method": numbers, "seconds": seconds, "found": ours, "ratio": ours / seconds})
    return rows


def chain(count: int, channels: int, kernel: int, groups: int) -> nn.Module:
    """Equal convolutions in a row."""
    layer = [nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups), nn.ReLU()]
    return nn.Sequential(*layer * count)  # the same weights: time does not depend on them


def ranks(unit: Unit, place: Place) -> list[Row]:
    """How alike latency ranks versions, by ``price``, by multiplications, and by latency measured once more.

    Versions lose channels, in blocks of each size, and run in float32 or as INT8.
    """
    asked = unit.options
    models, ours, macs = {}, {}, {}
    for multiple, share, numbers in (
        (m, share, n) for m, some in asked["shares"].items() for share in some for n in NUMBERS
    ):
        title = f"{share:g} of multiplications, channels in {multiple}s, {numbers}"
        models[title], ours[title], macs[title] = version(unit, multiple, share, numbers, place.work)
    first, again = (seconds_of(models, asked["rounds"]) for _ in range(2))
    latency = column(first)
    return [
        {
            "task": "rank", "method": what, "versions": len(models),
            "rank_correlation": spearman(column(values), latency),
            "slowest": max(first.values()), "fastest": min(first.values()),
        }
        for what, values in (("price", ours), ("multiplications", macs), ("latency, measured again", again))
    ] + [
        {"task": "version", "method": title, "seconds": first[title], "again": again[title], "found": ours[title],
         "macs": macs[title]} for title in models
    ]  # fmt: skip


def version(unit: Unit, multiple: int, share: float, numbers: str, folder: Path) -> tuple[bytes, float, int]:
    """A model, our seconds and its multiplications. Nothing is trained: time does not depend on the weights."""
    asked, name = unit.options, unit.options["network"]
    shape, generator = zoo.INPUTS[name], torch.Generator().manual_seed(unit.seed)
    x = torch.randn(32, *shape, generator=generator)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(16)]
    assigned = {"method": "int8"} if numbers == "int8" else {"method": "ecq", "lam": 0.02}
    values: dict[str, Any] = {"assign": assigned, "train": None}
    if share < 1:
        values["channels"] = {
            "macs": share, "multiple": multiple, "criterion": "random", "measured": False, "train": None
        }  # fmt: skip
    small = fb.compress(zoo.build(name, seed=unit.seed).eval(), batches, recipe=make(values | {"seed": unit.seed}))
    after, file = small.into(zoo.build(name, seed=unit.seed)), folder / f"version-{multiple}-{share:g}-{numbers}.onnx"
    # Clusters would be made floats anew at each call: the runtime does not fold what dequantizes them.
    to_onnx(after, x, file, plan=small.plan if numbers == "int8" else None)
    whole = zoo.build(name, seed=unit.seed)
    found = layers_of(small.plan, whole, shape) if numbers == "int8" else layers(after, shape)
    priced = price(found, machine_of(asked["machines"][numbers]))
    return file.read_bytes(), priced.seconds, priced.macs


def seconds_of(models: dict[str, bytes], rounds: int) -> dict[str, float]:
    """Median seconds of each model, which take turns."""
    rows = measure_latency(models, batches=(1,), rounds=rounds, clock=time.thread_time)
    return {row.name: row.seconds for row in rows}


def column(values: dict[str, float]) -> torch.Tensor:
    """Figures of all versions, in their order."""
    return torch.tensor([float(value) for value in values.values()], dtype=torch.float64)
