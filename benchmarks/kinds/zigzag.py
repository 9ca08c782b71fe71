"""ZigZag's edge-TPU template and ours: cycles and energy of the same layers (``--more zigzag=PYTHON``)."""

import json
import subprocess
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.unit import Place, Row, Unit
from fewbits import zoo
from fewbits.hardware import Layer, Machine, layers, machine_of, price
from fewbits.zoo.mobilenet import STAGES, InvertedResidual, MobileNetV2

HALF = "mobilenet-v2, half width"


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row: both sums over all layers of a network. Its weights play no part: ZigZag knows no zeros."""
    asked = unit.options
    name, (weight_bits, input_bits) = asked["network"], asked["bits"]
    model = half_mobilenet() if name == HALF else zoo.build(name, seed=unit.seed)
    machine = of_bits(machine_of(asked["machine"]), weight_bits, input_bits)
    found = layers(model, zoo.INPUTS.get(name, (3, 32, 32)))
    ours = price(found, machine)
    specs = [spec(layer, weight_bits, input_bits) for layer in found]
    answers = told(specs, place)
    theirs = [(layer.calls, answers[json.dumps(one, sort_keys=True)]) for layer, one in zip(found, specs, strict=True)]
    cycles, energy = (sum(calls * one[key] for calls, one in theirs) for key in ("cycles", "picojoules"))
    off = [priced.cycles / (calls * one["cycles"]) for priced, (calls, one) in zip(ours.layers, theirs, strict=True)]
    return [
        unit.settings | {
            "task": "zigzag", "split": "none", "layers": len(found), "macs": ours.macs,
            "zigzag_cycles": cycles, "cycles": ours.cycles, "cycles_ratio": ours.cycles / cycles,
            "zigzag_microjoules": 1e-6 * energy, "microjoules": 1e6 * (ours.joules or 0.0),
            "energy_ratio": 1e12 * (ours.joules or 0.0) / energy,
            "least_layer_ratio": min(off), "largest_layer_ratio": max(off),
        }
    ]  # fmt: skip


def half_mobilenet() -> nn.Module:
    """MobileNetV2 with half of the channels, but for the last layer's, as its paper has it (section 6.1)."""
    net = MobileNetV2()
    net.conv1, net.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
    blocks, before = [], 16
    for expansion, width, count, stride in STAGES:
        for number in range(count):
            blocks.append(InvertedResidual(before, width // 2, expansion, 1 if number else stride))
            before = width // 2
    net.blocks, net.conv2 = nn.Sequential(*blocks), nn.Conv2d(before, 1280, 1, bias=False)
    return net


def of_bits(machine: Machine, weight_bits: int, input_bits: int) -> Machine:
    """The machine with numbers of other widths; what one multiplication takes stays, as in ZigZag."""
    values = machine.model_dump(mode="json")
    values["numbers"]["weight_bits"]["value"], values["numbers"]["input_bits"]["value"] = weight_bits, input_bits
    return machine_of(values)


def spec(layer: Layer, weight_bits: int, input_bits: int) -> Row:
    """A layer as the peer reads it; a linear one is a convolution of one position for each of its own."""
    kernel, stride = (layer.kernel, layer.stride) if layer.kernel else ((1, 1), (1, 1))
    size_in, size_out = (size if layer.kernel else (1, *size) for size in (layer.size_in, layer.size_out))
    padding = []
    for high, step, given, made in zip(kernel, stride, size_in, size_out, strict=True):
        missing = max(0, (made - 1) * step + high - given)
        padding.append([missing // 2, missing - missing // 2])
    return {
        "outputs": layer.outputs // layer.groups, "inputs": layer.inputs // layer.groups, "groups": layer.groups,
        "kernel": list(kernel), "stride": list(stride), "size_in": list(size_in), "size_out": list(size_out),
        "padding": padding, "weight_bits": weight_bits, "input_bits": input_bits,
    }  # fmt: skip


def told(specs: list[Row], place: Place) -> dict[str, Any]:
    """ZigZag's answers by layer; those that it gave before lie in the folder of work, as each takes it seconds."""
    asked, answers = place.work / "zigzag-layers.json", place.work / "zigzag-answers.json"
    asked.write_text(json.dumps(specs))
    subprocess.run([place.more["zigzag"], "-P", Path(__file__).with_name("zigzag_peer.py"), asked, answers], check=True)
    found: dict[str, Any] = json.loads(answers.read_text())
    return found
