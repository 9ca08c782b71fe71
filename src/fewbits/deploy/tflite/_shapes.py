"""What only moves elements, in a ``.tflite`` file: reshape, concatenation, slices, padding."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fewbits.deploy.tflite._graph import NONE, Lowering, Value, channels_last, lowers
from fewbits.deploy.tflite._layers import pad, reshaped

STORED = (0, 3, 1, 2)  # where each of torch's dimensions of images is in the file


def place(value: Value, dimension: int) -> int:
    """A dimension of torch's, in the file."""
    dimension %= len(value.shape)
    return STORED[dimension] if len(value.shape) == 4 else dimension


@lowers(nn.Flatten, torch.flatten, torch.reshape, "flatten", "view", "reshape", torch.squeeze, "squeeze")
def reshape(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    (value,) = given
    shape = lowering.seen[node].shape
    if prod(shape) != prod(value.shape) or value.flat is not None:
        raise lowering.refused(node, "moves elements from one sample to another, or twice")
    if shape == value.shape:
        lowering.values[node] = value
        return
    flat = None
    if len(value.shape) == 4 and value.shape[2] * value.shape[3] > 1 and value.shape[1] > 1:
        if len(shape) == 2 and _only_linear(lowering, node):
            flat = value.shape[1:]
        else:
            turned = _transposed(lowering, node, value.tensor, value.stored, value, (0, 3, 1, 2))
            value = replace(value, tensor=turned)
    images = len(shape) == 4 and shape[2] * shape[3] > 1 and shape[1] > 1
    stored = shape if images else channels_last(shape)
    tensor = lowering.file.activation(node.name, stored, value.scale, value.zero)
    reshaped(lowering, f"{node.name}.shape", value.tensor, tensor, stored)
    if images:
        tensor = _transposed(lowering, node, tensor, stored, value, (0, 2, 3, 1))
    lowering.values[node] = Value(tensor, shape, value.scale, value.zero, flat)


def _only_linear(lowering: Lowering, node: fx.Node) -> bool:
    """Whether all that reads a value is linear layers, whose columns can follow the file's order."""
    for user in node.users:
        module = lowering.net.get_submodule(str(user.target)) if user.op == "call_module" else None
        if not isinstance(module, nn.Linear) and not (lowering._passes(user) and _only_linear(lowering, user)):
            return False
    return bool(node.users)


def _transposed(
    lowering: Lowering, node: fx.Node, tensor: int, stored: Sequence[int], of: Value, order: tuple[int, ...]
) -> int:
    """A tensor with its stored dimensions in another order."""
    made = lowering.file.activation(f"{node.name}.turned", [stored[i] for i in order], of.scale, of.zero)
    inputs = [tensor, lowering.numbers(f"{node.name}.order", order)]
    lowering.file.operation("TRANSPOSE", inputs, [made], 2, lowering.file.schema.TransposeOptionsT())
    return made


@lowers(torch.cat, torch.concat)
def concatenation(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    """All parts on the grid of the whole, which a quantizer would put them on afterwards."""
    parts = [lowering.plain(part) for part in lowering.argument(node, "tensors", 0, ())]
    grid = lowering.grid(node, activation=False)
    on_it = []
    for part in parts:
        if (part.scale, part.zero) != (grid.scale, grid.zero):
            tensor = lowering.file.activation(f"{node.name}.part", part.stored, grid.scale, grid.zero)
            lowering.file.operation("QUANTIZE", [part.tensor], [tensor], 2, lowering.file.schema.QuantizeOptionsT())
            on_it.append(tensor)
        else:
            on_it.append(part.tensor)
    made = lowering.give(node, grid, lowering.seen[node].shape)
    options = lowering.file.schema.ConcatenationOptionsT()
    options.axis, options.fusedActivationFunction = place(made, lowering.argument(node, "dim", 1, 0)), NONE
    lowering.file.operation("CONCATENATION", on_it, [made.tensor], 2, options)


@lowers(operator.getitem)
def sliced(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    (value,) = given
    parts = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    plain = value.flat is None and len(parts) <= len(value.shape)
    if not plain or not all(isinstance(part, slice) for part in parts):
        raise lowering.refused(node, "takes something else than slices")
    try:
        ranges = [range(size)[part] for size, part in zip(value.shape, parts, strict=False)]
    except TypeError:
        raise lowering.refused(node, "takes slices that depend on the data") from None
    ranges += [range(size) for size in value.shape[len(parts) :]]
    if len(ranges[0]) != 1 or any(part.step < 0 for part in ranges):
        raise lowering.refused(node, "takes a part of the samples")
    shape = tuple(len(part) for part in ranges)
    stored = channels_last(tuple(range(len(shape))))
    begin, step = [ranges[i].start for i in stored], [ranges[i].step for i in stored]
    end = [ranges[i].start + (len(ranges[i]) - 1) * ranges[i].step + 1 for i in stored]
    made = lowering.moved(node, value, shape)
    inputs = [lowering.numbers(f"{node.name}.{i}", numbers) for i, numbers in enumerate((begin, end, step))]
    options = lowering.file.schema.StridedSliceOptionsT()
    lowering.file.operation("STRIDED_SLICE", [value.tensor, *inputs], [made.tensor], 2, options)


@lowers(F.pad, nn.ZeroPad2d, nn.ZeroPad3d)
def zeros(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    (value,) = given
    amounts = module.padding if module is not None else lowering.argument(node, "pad", 1, ())
    if module is None:
        filled = lowering.argument(node, "mode", 2, "constant") != "constant" or lowering.argument(node, "value", 3, 0)
        if filled or not all(isinstance(n, int) for n in amounts):
            raise lowering.refused(node, "pads with something else than zeros")
    if min(amounts, default=0) < 0 or value.flat is not None:
        raise lowering.refused(node, "cuts a border off, or pads what is flattened")
    around = [(0, 0)] * len(value.shape)
    for i in range(len(amounts) // 2):  # from the last dimension on
        around[len(value.shape) - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    lowering.values[node] = pad(lowering, node, value, around)
