"""An ONNX graph with the tensors of a plan, as it came but for its numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor

from fewbits.deploy.onnx._compare import FLOAT, Agreement, distance, same_class
from fewbits.deploy.onnx._network import OnnxNetwork, serialized
from fewbits.deploy.onnx._weights import Integers, put
from fewbits.deploy.onnx.runtime import Array, onnx, session
from fewbits.errors import ExportError

FOUR_BITS, BY_HALVES, INTEGERS = 21, 19, 10  # opsets from which on DequantizeLinear knows int4 and int16, float16, int8


def rewritten(network: OnnxNetwork, tensors: dict[str, Integers]) -> tuple[Any, list[str]]:
    """The ModelProto of a network, with integers behind a DequantizeLinear where its operator set has them.

    Args:
        tensors: by the network's names.

    Returns:
        the model, and sentences on what became float.
    """
    model, inside = network.proto(), network.numbers()
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    whole: dict[str, Integers] = {}
    floats: Counter[str] = Counter()
    wider = 0
    for name, integers in tensors.items():
        bits = integers.bits if opset >= FOUR_BITS else max(integers.bits, 8)
        called = network.names[name]
        if network.types[called] != onnx().TensorProto.FLOAT:
            floats["they are not in float32"] += 1
        elif opset < INTEGERS or (bits > 8 and opset < FOUR_BITS):
            floats[f"opset {opset} has no integers of {bits} bits for weights"] += 1
        else:
            wider += bits > integers.bits
            whole[called] = Integers(integers.levels, integers.scales, bits, integers.axis)
    marks = {name: inside[name].detach().cpu().numpy() for name in whole}
    put(model, whole, marks)
    notes = [f"{count} tensor{'s' * (count > 1)} stayed float: {why}" for why, count in floats.items()]
    if wider:
        notes.append(f"opset {opset} has no 4-bit integers: {wider} tensor{'s' * (wider > 1)} became int8")
    return model, notes


def agreement(network: OnnxNetwork, model: Any, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> Agreement:
    """Run a network and the graph that was written from it.

    Raises:
        ExportError: their outputs differ by more than rounding.
    """
    expected = network(*args, **named)
    several = expected if isinstance(expected, dict) else {network.outputs[0]: expected}
    outputs: dict[str, Array] = {name: value.cpu().numpy() for name, value in several.items()}
    feeds = {name: value.cpu().numpy() for name, value in network.arranged(args, named).items()}
    found = dict(zip(outputs, session(serialized(model)).run(list(outputs), feeds), strict=True))
    off = {name: distance(value, found[name]) for name, value in outputs.items()}
    worst = max(off, key=lambda name: off[name])
    if off[worst] > FLOAT:
        raise ExportError(f"the output {worst} of the written graph differs by {100 * off[worst]:.3g} %")
    first = network.outputs[0]
    return Agreement(off[worst], 0, same_class(outputs[first], found[first]))
