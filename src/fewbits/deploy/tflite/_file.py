"""A ``.tflite`` file in the making: tensors, operations, and aligned bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewbits.deploy.tflite._package import Array, schema

Bytes = bytes  # which is a method's name below
ALIGNMENT = 16  # of every constant; microcontrollers read them where they lie


class TfliteFile:
    """One graph, built operation by operation.

    Args:
        name: of the network.
    """

    def __init__(self, name: str) -> None:
        self.schema = s = schema()
        self.graph = s.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = "main", [], []
        self.model = s.ModelT()
        self.model.version, self.model.description = 3, name
        self.model.subgraphs, self.model.operatorCodes, self.model.buffers = [self.graph], [], [s.BufferT()]
        self._codes: dict[tuple[int, int], int] = {}
        self._constants: dict[tuple[tuple[int, ...], bytes], int] = {}

    def activation(self, name: str, shape: Sequence[int], scale: float, zero: int) -> int:
        """An int8 tensor that an operation gives; its number."""
        return self._tensor(name, shape, self.schema.TensorType.INT8, np.array([scale]), zero)

    def constant(self, name: str, values: Array, scales: Array | None = None, axis: int = 0, zero: int = 0) -> int:
        """A tensor of int8 or int32 that the file holds; its number.

        Args:
            scales: float32 [channels] or [1]; ``None`` for plain numbers, such as shapes. axis: of the channels.
        """
        kinds = self.schema.TensorType
        data = np.ascontiguousarray(values.astype("<i1" if values.dtype == np.int8 else "<i4"))
        key = (data.shape, data.tobytes())
        if scales is None and key in self._constants:
            return self._constants[key]
        kind = kinds.INT8 if values.dtype == np.int8 else kinds.INT32
        index = self._tensor(name, data.shape, kind, scales, zero, axis)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        if scales is None:
            self._constants[key] = index
        return index

    def operation(self, name: str, inputs: list[int], outputs: list[int], version: int, options: Any = None) -> None:
        """A builtin operation, such as ``CONV_2D``, with options such as a ``Conv2DOptionsT``."""
        s = self.schema
        code = getattr(s.BuiltinOperator, name)
        if (code, version) not in self._codes:
            made = s.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), version
            self.model.operatorCodes.append(made)
            self._codes[code, version] = len(self._codes)
        operator = s.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self._codes[code, version], inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(s.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)

    def bytes(self) -> bytes:
        """The file."""
        return self.packed(self.model)

    def packed(self, model: Any) -> Bytes:
        """A model of the schema, with its constants aligned."""
        import flatbuffers

        builder = flatbuffers.Builder(1024)
        for buffer in model.buffers:
            buffer.Pack = _aligned(buffer, self.schema)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(
        self, name: str, shape: Sequence[int], kind: int, scales: Array | None, zero: int = 0, axis: int = 0
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [int(n) for n in shape], kind, 0
        if scales is not None:
            grid = self.schema.QuantizationParametersT()
            grid.scale = np.asarray(scales, np.float32)
            grid.zeroPoint, grid.quantizedDimension = np.full(len(grid.scale), zero, np.int64), axis
            tensor.quantization = grid
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1


def _aligned(buffer: Any, schema: Any) -> Any:
    """How a buffer packs itself; the generated way leaves out the alignment that the schema asks for."""

    def pack(builder: Any) -> int:
        data = None
        if buffer.data is not None:
            builder.StartVector(1, len(buffer.data), ALIGNMENT)
            builder.head -= len(buffer.data)
            builder.Bytes[builder.head : builder.head + len(buffer.data)] = buffer.data.tobytes()
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))

    return pack
