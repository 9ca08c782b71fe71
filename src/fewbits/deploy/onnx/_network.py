"""A network that lies in an ONNX file: its graph stays as it is, its numbers are compressed."""

from __future__ import annotations

import inspect
import keyword
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.deploy.onnx.runtime import Array, onnx, session
from fewbits.errors import DataError, FileError, UnsupportedError, did_you_mean
from fewbits.task.batches import described

# Inputs of operations that are weights, by their place; of a product of matrices that one which is no data.
_WEIGHTS = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1), "FusedMatMul": (0, 1), "Gather": (0,),
    "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Attention": (1,), "Einsum": (0, 1, 2),
}  # fmt: skip
_PASSED = {"Transpose", "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"}  # a weight behind them is one still
_LARGEST = 2**31 - 1  # bytes of one protobuf message


class _Numbers(nn.Module):
    """Holds tensors of a graph; ``compressible`` names those that are weights."""

    def __init__(self) -> None:
        super().__init__()
        self.compressible: tuple[str, ...] = ()


class _Graph:
    """A ModelProto without its float tensors, which copies of a network share."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Graph:
        return self

    def filled(self, tensors: dict[str, Tensor], types: dict[str, int]) -> Any:
        """The ModelProto with these numbers, in the types that the graph wants."""
        package, model = onnx(), onnx().ModelProto()
        model.CopyFrom(self.model)
        for name, tensor in tensors.items():
            kind = package.helper.tensor_dtype_to_np_dtype(types[name])
            values = tensor.detach().cpu().numpy().astype(kind)
            model.graph.initializer.append(package.numpy_helper.from_array(values, name))
        return model


class OnnxNetwork(nn.Module):
    """An ONNX graph as a module: it is given tensors in the order of the graph's inputs, and runs in ONNX Runtime.

    Every float tensor of the graph (initializers and constants of at least one dimension) is a parameter under its
    name there. Weights are those that convolutions, matrix products, embeddings and recurrent layers compute with.
    The runtime computes no gradients: such a network is compressed without training.

    Args:
        model: a ModelProto.

    Raises:
        UnsupportedError: tensors in bfloat16.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        model = _with_initializers(model)
        weights = _weights(model.graph)
        self.names: dict[str, str] = {}  # of a parameter, that in the graph
        self.types: dict[str, int] = {}  # by the name in the graph
        for initializer, values in _floats(model.graph):
            name = self._hold(initializer.name, values, initializer.name in weights)
            self.names[name] = initializer.name
            self.types[initializer.name] = initializer.data_type
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in self.types]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        self.graph = _Graph(model)
        stored = {tensor.name for tensor in kept} | set(self.types)
        self.inputs = tuple(value.name for value in model.graph.input if value.name not in stored)
        self.outputs = tuple(value.name for value in model.graph.output)
        self.words: dict[str, str] = {}  # of an input as an argument, its name in the graph
        for name in self.inputs:
            word = _word(name)
            while word in self.words:
                word += "_"
            self.words[word] = name
        taken = [inspect.Parameter(word, inspect.Parameter.POSITIONAL_OR_KEYWORD) for word in self.words]
        self.__signature__ = inspect.Signature(taken)  # what a batch is split by
        self._ready: tuple[Any, Any] | None = None

    def _hold(self, name: str, values: Tensor, weight: bool) -> str:
        """Keep a tensor under its name, or one that a module can have; returns that."""
        *path, attribute = name.split(".")
        home: nn.Module = self
        if all(_sound(part) for part in (*path, attribute)):
            for part in path:
                if part not in home._modules:
                    if hasattr(home, part):
                        break
                    home.add_module(part, _Numbers())
                home = home._modules[part]  # type: ignore[assignment]
            else:
                if isinstance(home, _Numbers) and not hasattr(home, attribute):
                    return self._put(home, attribute, ".".join((*path, attribute)), values, weight)
        if "tensors" not in self._modules:
            self.add_module("tensors", _Numbers())
        attribute = re.sub(r"\W", "_", name)
        while hasattr(self.tensors, attribute):
            attribute += "_"
        return self._put(self.tensors, attribute, f"tensors.{attribute}", values, weight)  # type: ignore[arg-type]

    @staticmethod
    def _put(home: _Numbers, attribute: str, name: str, values: Tensor, weight: bool) -> str:
        home.register_parameter(attribute, nn.Parameter(values))
        if weight:
            home.compressible = (*home.compressible, attribute)
        return name

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None}  # a session cannot be copied

    def numbers(self) -> dict[str, Tensor]:
        """What the graph computes with, by the names there."""
        found = {}
        for name, inside in self.names.items():
            path, _, attribute = name.rpartition(".")
            found[inside] = getattr(self.get_submodule(path), attribute)
        return found

    def proto(self) -> Any:
        """The ModelProto with the present numbers."""
        return self.graph.filled(self.numbers(), self.types)

    def arranged(self, args: Sequence[Tensor], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments by the names of the graph's inputs.

        Raises:
            DataError: the graph takes others.
        """
        given = dict(zip(self.inputs, args, strict=False)) | {self.words.get(k, k): v for k, v in named.items()}
        parts = [name for arg in args if isinstance(arg, Mapping) for name in arg]
        if parts or len(args) > len(self.inputs) or set(given) != set(self.inputs):
            told = parts or [f"{len(args)} by place"] * bool(args) + list(named)
            raise DataError(
                f"the graph takes {', '.join(self.inputs)}, but was given {' and '.join(told) or 'nothing'}"
            )
        return given

    def forward(self, *args: Tensor, **named: Tensor) -> Any:
        """The graph's output: one tensor, or several by their names.

        Raises:
            DataError: the graph takes other inputs.
        """
        given = self.arranged(args, named)
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise DataError(f"the graph's input {name} is a tensor, but was given {described(value)}")
        place = next((value.device for value in given.values()), torch.device("cpu"))
        feeds = {name: value.detach().cpu().numpy() for name, value in given.items()}
        try:
            found: list[Array] = self._session().run(list(self.outputs), feeds)
        except Exception as error:  # the runtime's own types, which share no public parent
            raise DataError(f"ONNX Runtime fails on these inputs: {' '.join(str(error).split())}") from error
        values = [torch.from_numpy(np.ascontiguousarray(array)).to(place) for array in found]
        return values[0] if len(values) == 1 else dict(zip(self.outputs, values, strict=True))

    def _session(self) -> Any:
        numbers = self.numbers()
        state = [(id(tensor), tensor._version) for tensor in numbers.values()]
        if self._ready is None or self._ready[0] != state:
            made = session(serialized(self.proto()), threads=torch.get_num_threads())
            # The tensors themselves are kept too: an address of one that is gone may be another's.
            self._ready = state, (made, numbers)
        return self._ready[1][0]


def from_onnx(path: str | os.PathLike[str]) -> OnnxNetwork:
    """The network in an ONNX file, with the tensors that lie beside it (external data).

    Example:
        >>> small = fb.compress(fb.from_onnx("net.onnx"), target="200 KB")  # doctest: +SKIP

    Raises:
        MissingExtraError: no ONNX. FileError: the file is missing, or is no ONNX. UnsupportedError: as there.
    """
    package, file = onnx(), Path(path)
    if not file.is_file():
        there = [beside.name for beside in file.parent.glob("*.onnx")]
        raise FileError(f"there is no file {file} (from {Path.cwd()}){did_you_mean(file.name, there)}")
    try:
        network = OnnxNetwork(package.load(file))
        network._session()  # whether the runtime takes it
    except UnsupportedError:
        raise
    except Exception as error:  # protobuf's own types, and the runtime's
        raise FileError(f"{file} is no sound ONNX file: {' '.join(str(error).split())[:300]}") from error
    return network


def _word(name: str) -> str:
    """A name of the graph as Python can write it."""
    word = re.sub(r"\W", "_", name) or "_"
    return f"_{word}" if word[0].isdigit() or keyword.iskeyword(word) else word


def serialized(model: Any) -> bytes:
    """The bytes of a ModelProto.

    Raises:
        UnsupportedError: more than 2 GB, which no single ONNX file holds.
    """
    if model.ByteSize() > _LARGEST:
        raise UnsupportedError("the network has more than 2 GB, which no single ONNX file holds")
    return bytes(model.SerializeToString())


def _sound(part: str) -> bool:
    """Whether a part of a name may be one of a module's attributes."""
    return bool(part) and part not in {"parametrizations", "tensors"} and not part.startswith("_")


def _with_initializers(model: Any) -> Any:
    """A copy in which constants are initializers, and no initializer is an input as well."""
    package, copied = onnx(), onnx().ModelProto()
    copied.CopyFrom(model)
    graph, nodes = copied.graph, []
    for node in graph.node:
        value = next((a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"), None)
        if value is None or not value.dims:
            nodes.append(node)
            continue
        tensor = package.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
    if len(nodes) < len(graph.node):
        kept = [_copy(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [_copy(value) for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)
    copied.ir_version = max(copied.ir_version, 4)  # before, initializers had to be inputs
    return copied


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made


def _floats(graph: Any) -> Iterator[tuple[Any, Tensor]]:
    """Float tensors of at least one dimension that are not empty."""
    package = onnx()
    kinds = package.TensorProto
    for tensor in graph.initializer:
        if tensor.data_type == kinds.BFLOAT16:
            raise UnsupportedError(f"{tensor.name} is in bfloat16: save the graph in float32 or float16 first")
        if tensor.data_type in (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE) and tensor.dims and 0 not in tensor.dims:
            yield tensor, torch.from_numpy(package.numpy_helper.to_array(tensor).copy())


def _weights(graph: Any) -> set[str]:
    """Names of the initializers of two and more dimensions that layers compute with."""
    source = {tensor.name: tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    found = set()
    for node in graph.node:  # in the order of computation, as ONNX wants it
        if node.op_type in _PASSED and node.input and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
        for place in _WEIGHTS.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in source:
                found.add(source[node.input[place]])
    return found
