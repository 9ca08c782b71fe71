"""Weights as indices into tables, which TFLite-Micro's DECODE operator unpacks before each layer that reads them.

The format is that of TensorFlow Lite Micro's ``compression/decode.py`` and ``compression/lut.py``: an encoded tensor of
indices, the highest bit first, and an ancillary tensor of sixteen bytes and the table.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from fewbits.deploy.tflite._file import ALIGNMENT, TfliteFile
from fewbits.deploy.tflite._package import Array, schema
from fewbits.errors import ExportError

OPERATOR = "TFLM_DECODE"
HEADER = 16  # bytes in front of the table
LOOK_UP, VERSION = 0, 1  # of the header, and of the table behind it
MOST_BITS = 7  # of an index
WORTH = 512  # bytes that have to be saved: an operator and its tensors take some 300 in the file
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Decoding:
    """What tables made of a file.

    Attributes:
        bytes, plain_bytes: of the file, and without tables. tables: how many weights have one.
        memory, plain_memory: bytes of all values that are needed at once, the least that an arena has.
    """

    bytes: int
    plain_bytes: int
    tables: int
    memory: int
    plain_memory: int


def encoded(levels: Array) -> tuple[Array, Array] | None:
    """Indices and ancillary data, uint8, of int8 levels; ``None`` where there are too many values.

    The header is: type, version, two zeros, version of the table, bits of an index, and how far the tables of two
    channels are apart: 0, as all channels have one. A last byte is filled with zeros.
    """
    values, indices = np.unique(levels, return_inverse=True)
    bits = max(1, (len(values) - 1).bit_length())
    if bits > MOST_BITS:
        return None
    each = (indices.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    table = np.zeros(2**bits, np.int8)
    table[: len(values)] = values
    header = np.zeros(HEADER, np.uint8)
    header[[0, 1, 4, 5, 6]] = LOOK_UP, VERSION, VERSION, bits, 0
    return np.packbits(each.astype(np.uint8)), np.concatenate([header, table.view(np.uint8)])


def decoded(indices: Array, ancillary: Array, shape: tuple[int, ...], channels: int = 1, last: bool = False) -> Array:
    """The int8 levels that DECODE gives, number by number, by shifts.

    Args:
        channels: scales of the tensor, each of which has a table. last: whether they lie along the last dimension.

    Raises:
        ExportError: no header of a table, or a tensor that ends too early.
    """
    count, header = prod(shape), ancillary[:HEADER].astype(int)
    if len(header) < HEADER or (header[0], header[1], header[4]) != (LOOK_UP, VERSION, VERSION):
        raise ExportError("an ancillary tensor has no header of a look-up table")
    bits, apart, table = int(header[5]) & 7, int(header[6]), ancillary[HEADER:].view(np.int8)
    if not bits or len(indices) < ceil(count * bits / 8):
        raise ExportError(f"{count} indices of {bits} bits do not lie in {len(indices)} bytes")
    at = np.arange(count) * bits
    padded = np.concatenate([indices, np.zeros(2, np.uint8)]).astype(int)
    pair = padded[at // 8] << 8 | padded[at // 8 + 1]
    index = pair >> (16 - at % 8 - bits) & (2**bits - 1)
    channel = np.arange(count) % channels if last else np.arange(count) // (count // channels)
    place = channel * apart + index
    if place.max(initial=0) >= len(table):
        raise ExportError("an index points behind its table")
    found: Array = table[place].reshape(shape)
    return found


def with_tables(file: TfliteFile) -> tuple[bytes, Decoding]:
    """A file whose weights have tables where that makes it smaller; it is decoded again before it is given.

    Each layer gets a DECODE of its own right in front of it, since microcontrollers may unpack all of them to one
    place. The file that is given is left as it was.

    Raises:
        ExportError: what is decoded is not what was encoded.
    """
    plain = file.bytes()
    s = schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(plain, 0))
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(s.BuiltinOperator).items() if isinstance(code, int)}
    wanted: list[tuple[int, Array]] = []
    made: dict[int, tuple[Any, int, Array] | None] = {}
    operators = []
    for operator in graph.operators:
        if names[model.operatorCodes[operator.opcodeIndex].builtinCode] in WEIGHTED:
            weight = int(operator.inputs[1])
            if weight not in made:
                made[weight] = _tables(s, model, graph, weight)
            found = made[weight]
            if found is not None:
                like, ancillary, levels = found
                out = _output(graph, like)
                operators.append(_operator(s, len(model.operatorCodes), weight, ancillary, out))
                operator.inputs = [out if place == 1 else n for place, n in enumerate(operator.inputs)]
                wanted.append((out, levels))
        operators.append(operator)
    graph.operators = operators
    if wanted:
        kind = s.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = s.BuiltinOperator.CUSTOM
        kind.customCode, kind.version = OPERATOR, 1
        model.operatorCodes.append(kind)
    data = file.packed(model)
    _checked(data, wanted)
    memories = (memory(s.ModelT.InitFromObj(s.Model.GetRootAs(d, 0)).subgraphs[0]) for d in (data, plain))
    return data, Decoding(len(data), len(plain), len(wanted), *memories)


def constant(model: Any, tensor: Any) -> Array | None:
    """The numbers of a tensor in the file; ``None`` of one that is computed."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    kinds = {9: np.dtype(np.int8), 3: np.dtype(np.uint8)}
    kind = kinds.get(tensor.type, np.dtype("<i4"))
    found: Array = np.asarray(data, np.uint8).view(kind).reshape(tensor.shape)
    return found


def weights(data: bytes) -> dict[str, tuple[str, Array]]:
    """By the names of weights, the operation that reads each, and its levels in the file's order."""
    s = schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    names = {code: name for name, code in vars(s.BuiltinOperator).items() if isinstance(code, int)}
    found = {}
    for operator in model.subgraphs[0].operators:
        name = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        if name in WEIGHTED:
            tensor = model.subgraphs[0].tensors[int(operator.inputs[1])]
            levels = constant(model, tensor)
            if levels is not None:
                found[_name(tensor)] = name, levels
    return found


def memory(graph: Any) -> int:
    """Bytes of values that have to be there at once, each from the operator that makes it to the last that reads it."""
    begin = dict.fromkeys(map(int, graph.inputs), 0)
    end = dict.fromkeys(map(int, graph.inputs), 0)
    for place, operator in enumerate(graph.operators):
        begin |= dict.fromkeys(map(int, operator.outputs), place)
        for tensor in (*operator.inputs, *operator.outputs):
            if int(tensor) in begin:
                end[int(tensor)] = place
    end |= dict.fromkeys(map(int, graph.outputs), len(graph.operators))
    sizes = {t: -(-prod(map(int, graph.tensors[t].shape)) // ALIGNMENT) * ALIGNMENT for t in begin}
    return max(
        (
            sum(size for t, size in sizes.items() if begin[t] <= place <= end[t])
            for place in range(len(graph.operators))
        ),
        default=0,
    )


def _tables(s: Any, model: Any, graph: Any, weight: int) -> tuple[Any, int, Array] | None:
    """A weight becomes its indices, in place: what it was, its ancillary tensor, and its levels.

    ``None``: it is computed, or the file would not get smaller.
    """
    tensor = graph.tensors[weight]
    levels = constant(model, tensor)
    found = None if levels is None or levels.dtype != np.int8 else encoded(levels)
    if levels is None or found is None or sum(map(len, found)) + WORTH > levels.size:
        return None
    indices, numbers = found
    ancillary, buffer = s.TensorT(), s.BufferT()
    ancillary.name, ancillary.shape, ancillary.type = f"{_name(tensor)}.table", [len(numbers)], s.TensorType.UINT8
    buffer.data, ancillary.buffer = numbers, len(model.buffers)
    model.buffers.append(buffer)
    graph.tensors.append(ancillary)
    before = copy.copy(tensor)
    model.buffers[tensor.buffer].data = indices
    tensor.shape, tensor.type, tensor.quantization = [len(indices)], s.TensorType.UINT8, None
    return before, len(graph.tensors) - 1, levels


def _output(graph: Any, like: Any) -> int:
    """A tensor that is computed; its scales say how many tables there are."""
    tensor = copy.copy(like)
    tensor.name, tensor.buffer = f"{_name(like)}.decoded", 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _name(tensor: Any) -> str:
    return str(tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name)


def _operator(s: Any, code: int, weight: int, ancillary: int, output: int) -> Any:
    made = s.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, [weight, ancillary], [output]
    return made


def _checked(data: bytes, wanted: list[tuple[int, Array]]) -> None:
    """Decode every table of a file as it was written."""
    s = schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))
    graph, expected = model.subgraphs[0], dict(wanted)
    for operator in graph.operators:
        kind = model.operatorCodes[operator.opcodeIndex]
        if kind.builtinCode != s.BuiltinOperator.CUSTOM:
            continue
        (out,) = map(int, operator.outputs)
        tensor = graph.tensors[out]
        indices, ancillary = (constant(model, graph.tensors[int(n)]) for n in operator.inputs)
        assert indices is not None
        assert ancillary is not None
        scales, shape = len(tensor.quantization.scale), tuple(map(int, tensor.shape))
        last = scales > 1 and tensor.quantization.quantizedDimension == len(shape) - 1
        if not np.array_equal(decoded(indices, ancillary, shape, scales, last), expected.pop(out)):
            raise ExportError(f"the table of {tensor.name!r} gives other levels than the plan's")
    if expected:
        raise ExportError(f"{len(expected)} weights have no table in the file")
