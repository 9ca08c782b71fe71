"""From the graph of an integer form to the operations of a ``.tflite`` file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fewbits.deploy.tflite._file import TfliteFile
from fewbits.errors import UnsupportedError
from fewbits.graph.traced import arguments
from fewbits.int8 import Quantizer
from fewbits.int8.affine_grid import range_parameters
from fewbits.plan import Plan

NONE, RELU, RELU6 = 0, 1, 3  # of the schema's ActivationFunctionType
_PASSED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, F.dropout, "contiguous")


@dataclass(frozen=True)
class Value:
    """A tensor of the network in the file.

    Attributes:
        tensor: its number. shape: in torch's order, of one sample: ``(1, ...)``.
        scale, zero: of its grid; ``zero`` in -128..127.
        flat: channels, height and width of what was flattened, where its elements are in the file's order.
        final: whether a quantizer behind it is left out, as it is near enough.
    """

    tensor: int
    shape: tuple[int, ...]
    scale: float
    zero: int
    flat: tuple[int, int, int] | None = None
    final: bool = False

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in the file: channels last."""
        return channels_last(self.shape)


@dataclass(frozen=True)
class Grid:
    """Where a computed value goes: the nodes that it stands for, its grid, and the activation on the way."""

    nodes: tuple[fx.Node, ...]
    scale: float
    zero: int
    activation: int


@dataclass(frozen=True)
class Seen:
    """What a value was like on the inputs given: torch's shape for one sample, and its range."""

    shape: tuple[int, ...]
    low: float
    high: float


Lower = Callable[["Lowering", fx.Node, Any, tuple[Value, ...]], None]
"""Writes an operation: the lowering, the node, its module (or ``None``), and what it reads."""

OPERATIONS: dict[Any, Lower] = {}
"""By a module's class, a function, or the name of a method. A row more is an operation more."""


def lowers(*kinds: Any) -> Callable[[Lower], Lower]:
    """Puts an operation into the table."""

    def put(function: Lower) -> Lower:
        OPERATIONS.update(dict.fromkeys(kinds, function))
        return function

    return put


class Lowering:
    """Writes a network operation by operation.

    Args:
        net: an integer form with the values of ``plan``. seen: of every value on some inputs.

    Attributes:
        loose: values that had no grid, and got the range of those inputs.
    """

    def __init__(self, net: fx.GraphModule, plan: Plan, seen: dict[fx.Node, Seen], name: str) -> None:
        self.net, self.plan, self.seen, self.file = net, plan, seen, TfliteFile(name)
        self.values: dict[fx.Node, Value] = {}
        self.loose: list[str] = []

    def written(self) -> bytes:
        """The file.

        Raises:
            UnsupportedError: an operation that no ``.tflite`` file of integers has, or that is not known here; the
                message names it.
        """
        inputs, outputs = [], []
        for node in self.net.graph.nodes:
            if node in self.values:
                continue
            if node.op == "placeholder":
                if not node.users:
                    continue
                if node not in self.seen:
                    raise UnsupportedError(
                        f"no int8 .tflite of this network: its input %{node.name} is no tensor of floats, and those of "
                        "such a file are; let the network begin behind the conversion to floats, or export --to onnx"
                    )
                grid = self.grid(node)
                inputs.append(self.give(node, grid, self.seen[node].shape).tensor)
            elif node.op == "output":
                outputs = [self.plain(given).tensor for given in node.all_input_nodes]
            elif node in self.seen:  # else it is about shapes, which are fixed in the file
                self._operation(node)
        self.file.graph.inputs, self.file.graph.outputs = inputs, outputs
        return self.file.bytes()

    def _operation(self, node: fx.Node) -> None:
        module = self.net.get_submodule(str(node.target)) if node.op == "call_module" else None
        given = tuple(self.values[n] for n in node.all_input_nodes if n in self.values)
        if isinstance(module, Quantizer):
            self._requantize(node, module, *given)
            return
        if self._passes(node):
            self.values[node] = given[0]
            return
        kind = type(module) if module is not None else node.target
        lower = OPERATIONS.get(kind)
        if lower is None or not given:
            raise self.refused(node, "is not known here")
        lower(self, node, module, given)

    # -- what operations use -----------------------------------------------------------------------------

    def refused(self, node: fx.Node, why: str) -> UnsupportedError:
        """The sentence on an operation that cannot be written."""
        what = str(node.target) if node.op != "call_function" else getattr(node.target, "__name__", str(node.target))
        if node.op == "call_module":
            what = f"{type(self.net.get_submodule(what)).__name__} ({what})"
        return UnsupportedError(f"no int8 .tflite of this network: {what} at %{node.name} {why}; export --to onnx does")

    def argument(self, node: fx.Node, name: str, place: int, default: Any) -> Any:
        """An argument of a function or method, given by position or name."""
        if node.op == "call_function" and name in (bound := arguments(node)):
            return bound[name]
        return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)

    def grid(self, node: fx.Node, *, activation: bool = True) -> Grid:
        """Where the value of a node goes: up to its quantizer, through an activation function if there is one.

        Args:
            activation: whether the operation can do one on the way.
        """
        nodes, code = [node], NONE
        while len(users := list(nodes[-1].users)) == 1:
            user = users[0]
            module = self.net.get_submodule(str(user.target)) if user.op == "call_module" else None
            if isinstance(module, Quantizer):
                return Grid((*nodes, user), float(module.scale), int(module.zero_point) - 128, code)
            found = activation_of(user, module)
            if found is not None and code == NONE and activation:
                code = found
            elif not self._passes(user):
                break
            nodes.append(user)
        last = self.seen[nodes[-1]]
        self.loose.append(nodes[-1].name)
        scale, zero = range_parameters(torch.tensor(last.low), torch.tensor(last.high))
        return Grid(tuple(nodes), float(scale), int(zero) - 128, code)

    def give(self, node: fx.Node, grid: Grid, shape: Sequence[int], flat: Any = None, final: bool = False) -> Value:
        """A new tensor on a grid, which is the value of all its nodes."""
        shape = tuple(shape)
        tensor = self.file.activation(node.name, channels_last(shape), grid.scale, grid.zero)
        value = Value(tensor, shape, grid.scale, grid.zero, flat, final)
        self.values.update(dict.fromkeys(grid.nodes, value))
        return value

    def moved(self, node: fx.Node, of: Value, shape: Sequence[int], *, flat: Any = None, final: bool = False) -> Value:
        """A new tensor on the grid of another."""
        return self.give(node, Grid((node,), of.scale, of.zero, NONE), shape, flat, final)

    def numbers(self, name: str, values: Any) -> int:
        """A constant tensor of int32, such as a shape."""
        return self.file.constant(name, np.asarray(values, np.int32))

    def image(self, node: fx.Node, value: Value) -> Value:
        """The value, if it has channels, height and width."""
        if len(value.shape) != 4:
            raise self.refused(node, f"reads {len(value.shape)} dimensions, and not four")
        return value

    def plain(self, node: fx.Node) -> Value:
        """A value whose elements are in torch's order, for those that cannot do with another."""
        value = self.values.get(node)
        if value is None:
            raise self.refused(node, "gives no activations")
        if value.flat is not None:
            raise self.refused(node, "flattens channels into an order that only a linear layer takes")
        return value

    def _passes(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(
                self.net.get_submodule(str(node.target)), tuple(k for k in _PASSED if isinstance(k, type))
            )
        return node.target in _PASSED

    def _requantize(self, node: fx.Node, module: Quantizer, value: Value) -> None:
        scale, zero = float(module.scale), int(module.zero_point) - 128
        if value.final or (value.scale, value.zero) == (scale, zero):
            self.values[node] = value
            return
        made = self.give(node, Grid((node,), scale, zero, NONE), value.shape, value.flat)
        self.file.operation("QUANTIZE", [value.tensor], [made.tensor], 2, self.file.schema.QuantizeOptionsT())


def activation_of(node: fx.Node, module: nn.Module | None) -> int | None:
    """Which activation function an operation is, of those that others do on the way."""
    if isinstance(module, nn.ReLU6) or (module is None and node.target is F.relu6):
        return RELU6
    if isinstance(module, nn.Hardtanh):
        return RELU6 if (module.min_val, module.max_val) == (0, 6) else None
    functions: tuple[Any, ...] = (F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_")
    if isinstance(module, nn.ReLU) or (module is None and node.target in functions):
        return RELU
    return None


def channels_last(shape: Sequence[Any]) -> tuple[Any, ...]:
    """What there is for each dimension of torch's, in the file's order: channels last. Others than images stay."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else tuple(shape)


class Looking(fx.Interpreter):
    """Runs a network and notes what its values are like."""

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net)
        self.seen: dict[fx.Node, Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.dim() and result.is_floating_point() and result.numel():
            low, high = torch.aminmax(result.detach())
            self.seen[n] = Seen((1, *result.shape[1:]), float(low), float(high))
        return result
