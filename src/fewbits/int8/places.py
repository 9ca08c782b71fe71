"""Where integer arithmetic needs its inputs on a grid, read from the graph."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from fewbits.graph.traced import arguments
from fewbits.weights import WEIGHTED

# Operations that choose or move elements: what goes in on a grid comes out on it; so does padding, as zero is a
# level.
_MOVING_MODULES = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Flatten, nn.Unflatten,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.PixelShuffle, nn.ChannelShuffle,
)  # fmt: skip
_MOVING_FUNCTIONS: tuple[Any, ...] = (
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.flatten, torch.reshape, torch.permute, torch.transpose,
    torch.squeeze, torch.unsqueeze, F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool2d, operator.getitem,
)  # fmt: skip
_MOVING_METHODS = frozenset(
    ["view", "reshape", "flatten", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "t", "narrow"]
)
# What gives a tuple of parts. They are on the grid of the whole, but each part got its own before files were kept.
_PARTS: tuple[Any, ...] = (
    torch.chunk, torch.split, torch.unbind, torch.tensor_split, "chunk", "split", "unbind", "tensor_split",
    "split_with_sizes", "hsplit", "vsplit", "dsplit", torch.hsplit, torch.vsplit, torch.dsplit,
)  # fmt: skip
# What gives several tensors that are not parts of one, as do layers of other classes.
_SEVERAL: tuple[Any, ...] = (
    torch.max, torch.min, torch.median, torch.nanmedian, torch.mode, torch.kthvalue, torch.topk, torch.sort,
    torch.cummax, torch.cummin, torch.aminmax, torch.var_mean, torch.std_mean, "max", "min", "median", "nanmedian",
    "mode", "kthvalue", "topk", "sort", "cummax", "cummin", "aminmax", torch.broadcast_tensors, torch.meshgrid,
    F.multi_head_attention_forward, F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices,
    F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool2d_with_indices, F.adaptive_max_pool3d_with_indices,
)  # fmt: skip
# Runtimes add, average and join integers, too, if inputs and output are on grids.
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_JOINS: tuple[Any, ...] = (
    torch.cat, torch.concat, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
)  # fmt: skip
_AVERAGES = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
_MEANS: tuple[Any, ...] = (torch.mean, "mean")
_RECTIFIERS: tuple[Any, ...] = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_SHAPES = frozenset(("size", "dim", "numel"))
_RESERVED = frozenset(vars(nn.Module()))


def places(net: fx.GraphModule, *, whole: bool = False) -> dict[str, list[fx.Node]]:
    """``{name of a quantizer: nodes behind each of which it goes}``, in the order of computation.

    Linear and convolutional layers, sums, averages and concatenations want their inputs on a grid. The grid is set as
    early as possible: where the value is computed, behind its ReLU, and in front of all that only moves elements, so
    that a runtime can fuse layer, ReLU and grid. A layer that is called several times (a recurrent one) has one
    quantizer for all its outputs, and one for all its inputs.

    Args:
        whole: whether there is nothing but integers: the network's outputs, and what means are taken of, are on
            grids, too. Else they stay floating point.
    """
    data = _data(net.graph)
    calls = Counter(str(n.target) for n in net.graph.nodes if n.op == "call_module")
    names: dict[fx.Node, tuple[str, str]] = {}  # with what they are named after
    for node in net.graph.nodes:
        last = whole and (node.op == "output" or _is(node, net, _MEANS))
        if not last and (node in data or not _wants_grid(node, net, data)):
            continue
        repeated = node.op == "call_module" and calls[str(node.target)] > 1
        for source in _sources(node, net, data):
            # A node's name is its own: one ReLU may serve many places, each with its own range.
            if source.op == "call_module" and _is(source, net, WEIGHTED):
                names[source] = str(source.target).replace(".", "_"), str(source.target)
            elif repeated:
                names[source] = f"{node.target}_input".replace(".", "_"), f"{node.target}, its input"
            else:
                names.setdefault(source, (source.name, f"%{source.name}"))
    found: dict[str, list[fx.Node]] = {}
    owners: dict[str, str] = {}
    for node in net.graph.nodes:
        if node in names:
            found.setdefault(free_name(*names[node], owners), []).append(node)
    return found


def free_name(name: str, owner: str, owners: dict[str, str]) -> str:
    """The name, or the next one that nobody else has: a module has attributes, and paths meet once dots are gone."""
    while hasattr(nn.Module, name) or name in _RESERVED or owners.setdefault(name, owner) != owner:
        name += "_"
    return name


def grid_of(net: fx.GraphModule) -> dict[str, str]:
    """``{path of a layer: path of the quantizer on whose grid its input is}`` of a network in integer form."""
    found: dict[str, str] = {}
    for node in net.graph.nodes:
        if node.op == "call_module" and isinstance(net.get_submodule(str(node.target)), WEIGHTED):
            source = _source(node.all_input_nodes[0], net)
            if source.op == "call_module" and str(source.target).startswith("quantizers."):
                found.setdefault(str(node.target), str(source.target))
    return found


def repeated(net: fx.GraphModule) -> fx.GraphModule:
    """A copy of an integer form that also has a value's quantizer behind what only moved its elements.

    It computes the same, since numbers on a grid stay where they are; but runtimes fuse integers only between two such
    operations that follow each other.
    """
    net = copy.deepcopy(net)
    data = _data(net.graph)
    for node in list(net.graph.nodes):
        if node in data or not _wants_grid(node, net, data):
            continue
        for given in node.all_input_nodes:
            source = _source(given, net)
            if given is not source and source.op == "call_module" and str(source.target).startswith("quantizers."):
                with net.graph.inserting_after(given):
                    again = net.graph.create_node("call_module", source.target, (given,), {})
                node.replace_input_with(given, again)
    net.recompile()
    return net


def _data(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that are no activations: shapes, and what is computed from them or from constants alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        constant = node.op in ("call_function", "call_method") and all(n in found for n in node.all_input_nodes)
        shape = (node.op == "call_method" and node.target in _SHAPES) or node.target is getattr
        if node.op == "get_attr" or constant or shape:
            found.add(node)
    return found


def _is(node: fx.Node, net: fx.GraphModule, known: tuple[Any, ...]) -> bool:
    if node.op == "call_module":
        types = tuple(t for t in known if isinstance(t, type))
        return isinstance(net.get_submodule(str(node.target)), types)
    return node.op in ("call_function", "call_method") and any(node.target == k for k in known)


def _wants_grid(node: fx.Node, net: fx.GraphModule, data: set[fx.Node]) -> bool:
    if _is(node, net, (*WEIGHTED, *_AVERAGES, *_JOINS)):
        return True
    # A sum of integers needs both sides on grids; what an activation function or a product gave is floating point.
    return _is(node, net, _SUMS) and not any(n in data or _is_float(_source(n, net), net) for n in node.all_input_nodes)


def _is_float(source: fx.Node, net: fx.GraphModule) -> bool:
    return source.op in ("call_function", "call_method") and not _is(source, net, (*_SUMS, *_JOINS, *_RECTIFIERS))


def _sources(node: fx.Node, net: fx.GraphModule, data: set[fx.Node]) -> list[fx.Node]:
    """Where the inputs of an operation get their grids; a tuple of parts where the whole gets it, others nowhere."""
    found = []
    for given in node.all_input_nodes:
        if given in data:
            continue
        while _is(source := _source(given, net), net, _PARTS):
            given = source.all_input_nodes[0]
        if source not in data and not _is_tuple(source, net):
            found.append(source)
    return found


def _is_tuple(node: fx.Node, net: fx.GraphModule) -> bool:
    """Whether an operation gives several tensors, or may."""
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        return bool(getattr(module, "return_indices", False)) or isinstance(module, nn.RNNBase | nn.MultiheadAttention)
    if node.target is operator.getitem:
        return isinstance(node.args[1], slice) and _is_tuple(node.all_input_nodes[0], net)
    indices = node.op == "call_function" and bool(node.kwargs.get("return_indices"))
    return indices or _is(node, net, (*_PARTS, *_SEVERAL))


def _source(node: fx.Node, net: fx.GraphModule) -> fx.Node:
    """The node whose grid this one's value is on: back through all that only moves elements."""
    while _moves(node, net):
        node = node.all_input_nodes[0]
    return node


def _moves(node: fx.Node, net: fx.GraphModule) -> bool:
    if node.op == "call_function" and node.target is F.pad:
        given = arguments(node)
        return given.get("mode", "constant") != "constant" or not given.get("value")
    if node.op == "call_method":
        return node.target in _MOVING_METHODS
    if node.target is operator.getitem and _is_tuple(node.all_input_nodes[0], net):
        return False
    return _is(node, net, (*_MOVING_MODULES, *_MOVING_FUNCTIONS))
