"""Linear and convolutional layers with the batch normalisation that follows each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.errors import UnsupportedError
from fewbits.graph.recorded import VALUE
from fewbits.graph.traced import graph_of, left_alone
from fewbits.weights import NORMS, WEIGHTED


def pairs(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Calls of linear or convolutional layers, each with that of the normalisation with statistics that alone reads it.

    Both are called once, and have as many channels. The caller may edit the graph at what it is given.
    """
    calls = Counter(id(modules[str(n.target)]) for n in graph.nodes if n.op == "call_module")
    for node in list(graph.nodes):
        norm: Any = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, NORMS) or norm.running_mean is None or calls[id(norm)] > 1:
            continue
        before = node.all_input_nodes[0]
        layer = modules.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(layer, WEIGHTED) or len(before.users) != 1 or calls[id(layer)] != 1:
            continue
        given = before.meta.get(VALUE)  # of a graph that was recorded; a traced one does not tell, see across()
        if isinstance(layer, nn.Linear) and isinstance(given, Tensor) and given.dim() > 2:
            continue
        if len(layer.weight) == norm.num_features:
            yield before, node


def across(model: nn.Module, forward: Callable[[nn.Module], object] | None) -> dict[str, str]:
    """``{path of a normalisation: path of the layer before it}`` whose channels are not those of the layer.

    A linear layer has its channels last, and a normalisation normalises over the second dimension. Of two dimensions
    that is the same one; of three it is not, though both may be of one size. The graph does not tell.

    Args:
        forward: runs the network once; only where there is a pair to look at. ``None``: all of these may be such.
    """
    modules = dict(model.named_modules())
    found = {
        str(norm.target): str(layer.target)
        for layer, norm in pairs(graph_of(model), modules)
        if isinstance(modules[str(layer.target)], nn.Linear)
    }
    if not found or forward is None:
        return found
    seen: set[str] = set()
    hooks = [
        modules[path].register_forward_pre_hook(
            lambda _, args, path=path: seen.add(path) if args[0].dim() > 2 else None
        )
        for path in found
    ]
    before = {module: module.training for module in modules.values()}
    try:
        with torch.no_grad(), left_alone(model):
            forward(model.eval())
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in before.items():
            module.training = training
    return {path: layer for path, layer in found.items() if path in seen}


def biased(model: nn.Module, forward: Callable[[nn.Module], object] | None = None) -> dict[str, str]:
    """``{path of a normalisation: path of the layer before it}`` where that layer has a bias of its own.

    The normalisation's shift can take it over. Empty where ``torch.fx`` cannot read the structure.

    Args:
        forward: of :func:`across`, whose pairs are left out.
    """
    modules = dict(model.named_modules())
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    try:
        graph = graph_of(model)
    except UnsupportedError:
        return {}
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}  # by the forward itself
    found, other = {}, across(model, forward)
    for layer, norm in pairs(graph, modules):
        if str(norm.target) in other:
            continue
        path, bias, shift = str(layer.target), modules[str(layer.target)].bias, modules[str(norm.target)].bias
        if bias is None or shift is None or owners[id(bias)] > 1 or f"{path}.bias" in read:
            continue
        found[str(norm.target)] = path
    return found
