"""Latency in ONNX Runtime, INT8 against float32, the models taking turns: time does not depend on the weights."""

from pathlib import Path

import torch
from torch import nn

from benchmarks.unit import Place, Row, Unit
from fewbits import zoo
from fewbits.deploy.latency import measure_latency
from fewbits.deploy.onnx import to_onnx
from fewbits.hardware import count
from fewbits.int8 import RangedQuantizer, affine_plan, calibrate, integer_form
from fewbits.int8.form import hold_affine
from fewbits.pipeline.restore import network_of
from fewbits.zoo.resnet import ResNet20, _stage

SHAPE = (3, 32, 32)


def measure(unit: Unit, place: Place) -> list[Row]:
    """A row per model and batch: the network, ResNet-20s of ``widths``, and files of ``--more also=NAME:FILE,...``."""
    name = unit.options["model"]
    file = place.work / "untrained.onnx"
    models = both("", zoo.build(name, seed=0), file)
    whole, fewer = count(zoo.build(name, seed=0), SHAPE).macs, dict.fromkeys(models, 1.0)
    for widths, inner in unit.options.get("widths", ()):
        net = resnet_20(widths, inner)
        title = f"untrained, {'-'.join(map(str, widths))}"
        title += f", inside {'-'.join(map(str, inner))}, " if inner else ", "
        found = both(title, net, file)
        models |= found
        fewer |= dict.fromkeys(found, whole / count(net, SHAPE).macs)
    for given in filter(None, place.more.get("also", "").split(",")):
        title, _, path = given.partition(":")
        models[title] = Path(path).read_bytes()
    return [
        {
            "task": "latency", "model": name, "method": row.name, "batch": row.batch, "threads": row.threads,
            "seconds": row.seconds, "fast": row.fast, "slow": row.slow, "calls": row.calls,
            "samples_per_second": row.throughput, "onnx_bytes": row.bytes, "versus": "float32",
            "speedup": row.speedup, "macs_ratio": fewer.get(row.name, 1.0),
        }
        for row in measure_latency(models, batches=(1, 64), rounds=unit.options["rounds"])
    ]  # fmt: skip


def both(title: str, model: nn.Module, file: Path) -> dict[str, bytes]:
    """An untrained network as float32 and INT8 models: only their time means something."""
    names = (f"{title}float32", f"{title}int8")
    return dict(zip(names, float_and_int8(model, SHAPE, file), strict=True))


def float_and_int8(model: nn.Module, shape: tuple[int, ...], file: Path) -> tuple[bytes, bytes]:
    """A network as it is and with integers, as ONNX. The file is what both go through."""
    torch.manual_seed(0)
    inputs = torch.randn(16, *shape)
    model.eval()
    to_onnx(model, inputs, file)
    whole = file.read_bytes()
    net = integer_form(model, RangedQuantizer)
    calibrate(net, [inputs])
    hold_affine(net)
    plan = affine_plan(net)
    to_onnx(network_of(plan, model), inputs, file, plan=plan)
    return whole, file.read_bytes()


def resnet_20(widths: list[int], inner: list[int] | None = None) -> nn.Module:
    """ResNet-20 with other widths of its stages, and inside of blocks: what channel pruning leaves, for its time."""
    net, (first, second, third) = ResNet20(), widths
    net.conv1, net.bn1 = nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first)
    net.layer1, net.layer2, net.layer3 = (
        _stage(3, *shape) for shape in ((first, first, 1), (first, second, 2), (second, third, 2))
    )
    for stage, width in zip((net.layer1, net.layer2, net.layer3), inner or (), strict=bool(inner)):
        for block in stage:
            before, after, stride = block.conv1.in_channels, block.conv2.out_channels, block.conv1.stride
            block.conv1, block.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            block.conv2 = nn.Conv2d(width, after, 3, padding=1, bias=False)
    net.linear = nn.Linear(third, 10)
    return net
