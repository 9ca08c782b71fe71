"""Integer weights in an ONNX graph: initializers of 4, 8 or 16 bits behind a DequantizeLinear."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits.deploy.onnx.runtime import Array, onnx
from fewbits.errors import ExportError


@dataclass(frozen=True)
class Integers:
    """A tensor as integers: element = ``levels * scales`` in float32, by channel along ``axis`` (or one scale).

    Attributes:
        levels: integers of the tensor's shape. scales: float32 [channels] or [1]. bits: 4, 8, 16 or 32.
    """

    levels: Array
    scales: Array
    bits: int
    axis: int = 0

    def values(self) -> Array:
        """The float32 tensor."""
        shape = [1] * self.levels.ndim
        shape[self.axis] = -1
        return self.levels.astype(np.float32) * self.scales.reshape(shape)


def smallest_width(bits: int) -> int:
    """Bits that an ONNX integer needs for levels of so many bits."""
    return next(width for width in (4, 8, 16) if bits <= width)


def marked(network: nn.Module, tensors: Mapping[str, Integers]) -> tuple[nn.Module, dict[str, Array]]:
    """A copy of a network with random numbers for the tensors that :func:`put` will replace, and these numbers.

    torch's exporter makes one of two equal tensors (biases of zeros, say), which may need different scales.
    """
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    state, marks = network.state_dict(), {}
    for name in tensors:
        mark = torch.randn(state[name].shape, generator=generator)
        state[name].copy_(mark)
        marks[name] = mark.numpy()
    return network, marks


def put(
    model: Any, tensors: Mapping[str, Integers], marks: Mapping[str, Array], aliases: Mapping[str, str] | None = None
) -> None:
    """Replace float32 initializers of a ModelProto by integers, in place.

    Args:
        tensors: what to put, by the initializers' names. marks: what stands in their place, from :func:`marked`.
        aliases: ``{another name: the name here}`` of tensors that the network has under several: torch's exporter
            takes one of them.

    Raises:
        ExportError: the graph has no initializer of that name (nor, for matrices, one that is its transpose), or it
            holds other numbers.
    """
    helper = onnx().numpy_helper
    graph = model.graph
    found = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for first, integers in tensors.items():
        name = _called(first, found, aliases or {})
        tensor = found.get(name)
        if tensor is None:
            name, integers = _transposed(name, integers, marks[first], found, helper)
            tensor = found[name]
        elif not np.array_equal(helper.to_array(tensor), marks[first]):
            raise ExportError(f"{name}: torch's exporter changes the weights, which would not stay on their grid")
        parts = _initializers(name, integers)
        graph.initializer.remove(tensor)
        graph.initializer.extend(parts)
        attributes = {} if len(integers.scales) == 1 else {"axis": integers.axis}
        nodes.append(onnx().helper.make_node("DequantizeLinear", [p.name for p in parts], [name], **attributes))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + rest)


def misplaced(model: Any, marks: Mapping[str, Array], aliases: Mapping[str, str]) -> set[str]:
    """The tensors that :func:`put` would not find as they are, nor transposed."""
    helper = onnx().numpy_helper
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    lost = set()
    for first, mark in marks.items():
        tensor = found.get(_called(first, found, aliases))
        sound = tensor is not None and np.array_equal(helper.to_array(tensor), mark)
        if not sound and (tensor is not None or _turned(mark, found, helper) is None):
            lost.add(first)
    return lost


def _called(first: str, found: Mapping[str, Any], aliases: Mapping[str, str]) -> str:
    """Which of its names a tensor has in the graph."""
    return next((name for name in (first, *aliases) if name in found and aliases.get(name, name) == first), first)


def _turned(mark: Array, found: Mapping[str, Any], helper: Any) -> str | None:
    """The initializer that is the transpose of a matrix."""
    if mark.ndim != 2:
        return None
    for other, tensor in found.items():
        if tuple(tensor.dims) == mark.T.shape and np.array_equal(helper.to_array(tensor), mark.T):
            return other
    return None


def _transposed(
    name: str, integers: Integers, mark: Array, found: Mapping[str, Any], helper: Any
) -> tuple[str, Integers]:
    """The initializer that holds a matrix the other way round: what torch makes of it for three-dimensional inputs."""
    other = _turned(mark, found, helper)
    if other is not None:
        turned = Integers(np.ascontiguousarray(integers.levels.T), integers.scales, integers.bits, 1 - integers.axis)
        return other, turned
    raise ExportError(f"{name}: the exported graph has no such weight")


def _initializers(name: str, integers: Integers) -> list[Any]:
    """Levels, scales and, with 8 bits, zero points (all zero): runtimes that fuse integers look for them."""
    package = onnx()
    kinds = package.TensorProto
    kind = {4: kinds.INT4, 8: kinds.INT8, 16: kinds.INT16, 32: kinds.INT32}[integers.bits]
    levels = kinds(name=f"{name}.levels", data_type=kind, dims=integers.levels.shape)
    levels.raw_data = _packed(integers.levels, integers.bits)
    scales = integers.scales.astype(np.float32)
    one = len(scales) == 1
    parts = [levels, package.numpy_helper.from_array(scales.reshape(() if one else -1), f"{name}.scales")]
    if integers.bits == 8:
        zeros = np.zeros(() if one else len(scales), np.int8)
        parts.append(package.numpy_helper.from_array(zeros, f"{name}.zero_points"))
    return parts


def _packed(levels: Array, bits: int) -> bytes:
    """Little-endian bytes; two 4-bit numbers share one, the first in its low half."""
    if bits != 4:
        return levels.astype(f"<i{bits // 8}").tobytes()
    nibbles = levels.reshape(-1).astype(np.int8).view(np.uint8) & 15
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return bytes((nibbles[0::2] | nibbles[1::2] << 4).tobytes())
