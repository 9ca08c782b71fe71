"""Clusters with zeros in a 2:4 pattern on an Ethos-U85, beside the same network dense (extra ``ethos``)."""

import tempfile
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fewbits as fb
from benchmarks.unit import Place, Row, Unit
from fewbits import data
from fewbits.deploy.vela import VelaExport, to_vela
from fewbits.task import accuracy

METHODS: dict[str, Row] = {
    "int8": {"assign": {"method": "int8"}, "train": None},
    "clusters": {},
    "2:4 clusters": {"prune": {"method": "n:m", "pattern": "2:4"}},
}


def linear(width: int) -> nn.Module:
    """Each weight is used once a sample, so fetching weights is what takes time."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def convolutions(width: int, count: int = 2, stride: int = 1) -> nn.Module:
    """Each weight is used at all positions of an image; with 196 of them multiplying takes longest, not fetching."""
    layers = [nn.Conv2d(1, width, 3, stride, padding=1), nn.ReLU()]
    for _ in range(count):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


NETWORKS = {"linear": linear, "convolutions": convolutions}


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row for each method: accuracy on test data, and Vela's bytes and cycles. Nothing is chosen by them."""
    asked = unit.options
    torch.manual_seed(unit.seed)
    name = asked.get("data", "digits")
    images = data.load(name, place.data)
    make = partial(NETWORKS[asked["network"]], asked["width"], **asked.get("shape", {}))
    net = make()
    batches = list(islice(images.loader("train", 64, seed=unit.seed), asked.get("batches")))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(asked["float_epochs"]):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    before = accuracy(net.eval(), images.loader("test", 64))
    some, rows = next(iter(images.loader("test", 64)))[0][:16], []
    for method, more in METHODS.items():
        plain = {"assign": asked["assign"], "train": asked["train"], "activations": {"calibrate": 4}}
        recipe = {**plain, **more, "seed": unit.seed} if method != "int8" else more
        small = fb.compress(net, batches, recipe=recipe)
        after = small.into(make())
        found = vela(after, some, small, asked["accelerator"])
        rows.append(
            unit.settings | {
                "task": "2:4", "data": name, "method": method,
                "split": "test", "accuracy": accuracy(after, images.loader("test", 64)), "baseline_accuracy": before,
                "accelerator": asked["accelerator"], "bytes": len(small.data), "weights": found.weights,
                "weight_bytes": found.weight_bytes, "flash": found.flash, "cycles": found.cycles,
                "npu_cycles": found.npu_cycles, "processor_operations": found.cpu,
                "sparsity": zeros(small) / found.weights,
            }
        )  # fmt: skip
    for row in rows:
        for other in ("int8", "clusters"):
            (dense,) = [one for one in rows if one["method"] == other]
            row[f"speedup_over_{other}"] = dense["cycles"] / row["cycles"]
    return rows


def vela(net: nn.Module, inputs: torch.Tensor, small: Any, accelerator: str) -> VelaExport:
    """What Vela says of a compressed network."""
    with tempfile.TemporaryDirectory() as folder:
        return to_vela(net, inputs, Path(folder) / "net.tflite", plan=small.plan, accelerator=accelerator)


def zeros(small: Any) -> int:
    return sum(int((entry.levels == 0).sum()) for entry in small.plan.affine.values())
