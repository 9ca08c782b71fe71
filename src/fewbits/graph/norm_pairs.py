"""Linear and convolutional layers with the batch normalisation that follows each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx, nn

from fewbits.errors import UnsupportedError
from fewbits.graph.traced import graph_of
from fewbits.weights import NORMS, WEIGHTED


def pairs(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Calls of linear or convolutional layers, each with that of the normalisation with statistics that alone reads it.

    Both are called once. The caller may edit the graph at what it is given.
    """
    calls = Counter(id(modules[str(n.target)]) for n in graph.nodes if n.op == "call_module")
    for node in list(graph.nodes):
        norm: Any = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, NORMS) or norm.running_mean is None or calls[id(norm)] > 1:
            continue
        before = node.all_input_nodes[0]
        layer = modules.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(layer, WEIGHTED) and len(before.users) == 1 and calls[id(layer)] == 1:
            yield before, node


def biased(model: nn.Module) -> dict[str, str]:
    """``{path of a normalisation: path of the layer before it}`` where that layer has a bias of its own.

    The normalisation's shift can take it over. Empty where ``torch.fx`` cannot read the structure.
    """
    modules = dict(model.named_modules())
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    try:
        graph = graph_of(model)
    except UnsupportedError:
        return {}
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}  # by the forward itself
    found = {}
    for layer, norm in pairs(graph, modules):
        path, bias, shift = str(layer.target), modules[str(layer.target)].bias, modules[str(norm.target)].bias
        if bias is None or shift is None or owners[id(bias)] > 1 or f"{path}.bias" in read:
            continue
        found[str(norm.target)] = path
    return found
