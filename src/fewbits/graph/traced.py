"""A read-only look at a network's computation through ``torch.fx``: which operation feeds which.

The lens knows names and kinds, never the model's tensors: the same lens serves the plain network and the one
that carries a plan during training.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fewbits.errors import UnsupportedError


class Kind(StrEnum):
    """How relevance goes backward through an operation."""

    INPUT = "input"
    WEIGHTED = "weighted"  # linear and convolutional layers: a rule of rules.py
    NORM = "norm"  # batch normalisation: folded, passed, or a rule of its own
    PASS = "pass"  # element by element: relevance goes through unchanged
    MOVE = "move"  # elements are moved or chosen (reshape, pad, cat, max pooling): relevance follows them
    SHARE = "share"  # sums and averages: relevance is shared in proportion to the contributions
    DATA = "data"  # shapes and constants: no relevance
    OUTPUT = "output"


_PASS_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardtanh, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
_MOVE_MODULES = (
    nn.Flatten, nn.Unflatten, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.PixelShuffle, nn.ChannelShuffle,
)  # fmt: skip
_SHARE_MODULES = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Upsample,
)  # fmt: skip
MODULES: dict[type[nn.Module], Kind] = {
    **dict.fromkeys((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d), Kind.WEIGHTED),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), Kind.NORM),
    **dict.fromkeys(_PASS_MODULES, Kind.PASS),
    **dict.fromkeys(_MOVE_MODULES, Kind.MOVE),
    **dict.fromkeys(_SHARE_MODULES, Kind.SHARE),
}

_PASS_FUNCTIONS = (
    F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardtanh, F.softplus,
    torch.relu, torch.relu_, torch.tanh, torch.sigmoid,
)  # fmt: skip
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout)
_MOVE_FUNCTIONS = (
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze,
    torch.cat, torch.concat, torch.stack, F.pad, F.max_pool1d, F.max_pool2d, F.max_pool3d,
    F.adaptive_max_pool2d, operator.getitem,
)  # fmt: skip
_SHARE_FUNCTIONS = (
    operator.add, operator.iadd, torch.add, torch.mean, torch.sum, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.interpolate,
)  # fmt: skip
FUNCTIONS: dict[Callable[..., Any], Kind] = {
    **dict.fromkeys(_PASS_FUNCTIONS + DROPOUTS, Kind.PASS),
    **dict.fromkeys(_MOVE_FUNCTIONS, Kind.MOVE),
    **dict.fromkeys(_SHARE_FUNCTIONS, Kind.SHARE),
}

_MOVE_METHODS = "view reshape flatten permute transpose contiguous squeeze unsqueeze t expand narrow"
METHODS: dict[str, Kind] = {
    **dict.fromkeys(("relu", "relu_", "tanh", "sigmoid"), Kind.PASS),
    **dict.fromkeys(_MOVE_METHODS.split(), Kind.MOVE),
    **dict.fromkeys(("add", "add_", "mean", "sum"), Kind.SHARE),
    **dict.fromkeys(("size", "dim", "numel"), Kind.DATA),
}

# Scaling by a constant changes neither shares nor positions.
_SCALINGS: tuple[Any, ...] = (
    operator.mul, operator.truediv, operator.imul, operator.itruediv, torch.mul, torch.div,
    "mul", "div", "mul_", "div_",
)  # fmt: skip
_IN_PLACE = (operator.iadd, operator.imul, operator.itruediv)


class _Proxy(fx.Proxy):
    """Tells ``y += x`` from ``y = y + x``, which plain ``torch.fx`` does not: one overwrites ``y``."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Stops at layers whose kind is known, parametrized ones included; looks into everything else."""

    def __init__(self, extra: Mapping[Any, Kind]) -> None:
        super().__init__()
        self._extra = extra

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict) and (
            kind_of_module(m, self._extra) is not None or super().is_leaf_module(m, module_qualified_name)
        )


def kind_of_module(module: nn.Module, extra: Mapping[Any, Kind] | None = None) -> Kind | None:
    """The kind of a layer by its class, ``None`` when unknown.

    A class that specialises a known one counts as that one, unless it computes something of its own.
    """
    for cls in type(module).__mro__:
        if extra and cls in extra:
            return extra[cls]
        if cls in MODULES and type(module).forward is cls.forward:
            return MODULES[cls]
    return None


@dataclass(frozen=True, eq=False)
class TracedGraph:
    """The computation graph of a network, each node with its :class:`Kind`.

    Attributes:
        graph: the traced graph, in execution order.
        kinds: kind of every node.
        calls: for every layer path, its nodes in execution order (two when a layer is used twice).
        folds: batch normalisation node -> the weighted node whose output goes there and nowhere else.
        mutated: nodes whose value a later operation may overwrite in place.
    """

    graph: fx.Graph
    kinds: dict[fx.Node, Kind]
    calls: dict[str, list[fx.Node]] = field(default_factory=dict)
    folds: dict[fx.Node, fx.Node] = field(default_factory=dict)
    mutated: frozenset[fx.Node] = frozenset()

    @property
    def input(self) -> fx.Node:
        return next(n for n in self.graph.nodes if n.op == "placeholder")

    @property
    def result(self) -> fx.Node:
        """The node that holds the network's output (class scores)."""
        return self.graph.output_node().args[0]  # type: ignore[return-value]

    def weighted(self) -> list[str]:
        """Paths of the layers that have a weight, in execution order."""
        return [p for p, nodes in self.calls.items() if self.kinds[nodes[0]] is Kind.WEIGHTED]


def graph_of(model: nn.Module, extra: Mapping[Any, Kind] | None = None) -> fx.Graph:
    """The bare graph of a network, whether or not relevance can go through it.

    Raises:
        UnsupportedError: control flow that depends on data.
    """
    try:
        return _Tracer(extra or {}).trace(model)
    except Exception as error:  # torch.fx raises many types, depending on what the forward does
        raise UnsupportedError(f"cannot read the structure of {type(model).__name__} with torch.fx: {error}") from error


def trace(model: nn.Module, operations: Mapping[Any, Kind | str] | None = None) -> TracedGraph:
    """Read the structure of a network.

    Args:
        model: takes one tensor, gives one tensor of class scores.
        operations: kinds of operations unknown to fewbits: layer class, function or method name -> kind, for
            example ``{torch.sin: "pass"}``.

    Raises:
        UnsupportedError: control flow that depends on data, several inputs or outputs, or an operation
            without a rule; the message names the operation and the layer.
    """
    extra = {key: Kind(value) for key, value in (operations or {}).items()}
    graph = graph_of(model, extra)
    inputs = [n for n in graph.nodes if n.op == "placeholder" and n.users]
    result = graph.output_node().args[0]
    if len(inputs) != 1 or not isinstance(result, fx.Node):
        returned = "one tensor" if isinstance(result, fx.Node) else f"a {type(result).__name__}"
        raise UnsupportedError(
            f"relevance needs one input tensor and one output tensor; {type(model).__name__} has "
            f"{len(inputs)} inputs and returns {returned}"
        )
    kinds: dict[fx.Node, Kind] = {}
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        kinds[node] = _kind(node, model, kinds, extra)
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    folds = {
        node: node.all_input_nodes[0]
        for node in graph.nodes
        if kinds[node] is Kind.NORM
        and kinds[node.all_input_nodes[0]] is Kind.WEIGHTED
        and len(node.all_input_nodes[0].users) == 1
    }
    mutated: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        # Reshapes, dropout at rest and the like may give out the very memory that they were given.
        if overwrites(node, model) or (node in mutated and kinds[node] in (Kind.PASS, Kind.MOVE)):
            mutated.update(node.all_input_nodes[:1])
    return TracedGraph(graph, kinds, calls, folds, frozenset(mutated))


def _kind(node: fx.Node, model: nn.Module, known: Mapping[fx.Node, Kind], extra: Mapping[Any, Kind]) -> Kind:
    if node.op == "placeholder":
        return Kind.INPUT
    if node.op == "output":
        return Kind.OUTPUT
    if node.op == "get_attr":
        return Kind.DATA
    tensors = [n for n in node.all_input_nodes if known[n] is not Kind.DATA]
    target = node.target
    if node.op == "call_module":
        module = model.get_submodule(str(target))
        kind = kind_of_module(module, extra)
        what = type(module).__name__
    else:
        if not tensors or target is getattr:
            return Kind.DATA
        if target not in extra and target in _SCALINGS and len(tensors) == 1:
            return Kind.PASS
        table: Mapping[Any, Kind] = METHODS if node.op == "call_method" else FUNCTIONS
        kind = extra.get(target, table.get(target))
        what = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    if kind is None:
        raise UnsupportedError(
            f"no relevance rule for operation {what!r} at {node.name!r} (in {_owner(node, model)}); "
            f"name its kind with operations={{{what}: 'pass' | 'move' | 'share'}} if one of these is right"
        )
    return kind


def _owner(node: fx.Node, model: nn.Module) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    for path, _ in reversed(list(stack.values())):
        if path:
            return f"{path}: {type(model.get_submodule(path)).__name__}"
    return type(model).__name__


def overwrites(node: fx.Node, model: nn.Module) -> bool:
    """Whether an operation writes its result over its first operand."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op != "call_function":
        return False
    by_name = str(getattr(node.target, "__name__", "")).endswith("_")
    return node.target in _IN_PLACE or by_name or bool(arguments(node).get("inplace"))


def arguments(node: fx.Node) -> Mapping[str, Any]:
    """Arguments of a function's node by their names, given by position or not."""
    assert callable(node.target)
    try:
        return inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # a builtin says nothing of its signature
        return node.kwargs
