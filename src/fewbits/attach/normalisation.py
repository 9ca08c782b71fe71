"""Batch normalisation as the affine map that it is after training: two numbers per channel, not four or five."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from fewbits.errors import UnsupportedError
from fewbits.measure.relevance.lens import graph_of
from fewbits.weights import WEIGHTED

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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


@torch.no_grad()
def merge_statistics(model: nn.Module, biases: Mapping[str, str] | None = None) -> int:
    """Move running statistics into scale and shift, in place: mean becomes 0 and variance 1.

    In evaluation mode the network computes the same (up to rounding); constant tensors cost nothing in a
    file, so half of the normalisation's numbers are saved. The layers stay, unlike with folding into the
    convolution, whose weights could then not stay on their grid.

    Args:
        biases: of :func:`biased`: these layers' biases move into the shift as well, and become 0.

    Returns:
        The number of layers merged. Without running statistics, or scale and shift, a layer is left alone.
    """
    biases, modules, count = biases or {}, dict(model.named_modules()), 0
    for path, module in modules.items():
        if not isinstance(module, NORMS) or module.running_mean is None or module.weight is None:
            continue
        assert module.running_var is not None
        # The layer divides by sqrt(1 + eps) from now on; in float64, so that merging twice changes nothing.
        scale = module.weight.double() * torch.rsqrt(module.running_var.double() + module.eps)
        mean = module.running_mean.double()
        if path in biases:
            bias = modules[biases[path]].bias
            mean = mean - bias.double()
            bias.zero_()
        module.bias.copy_(module.bias.double() - mean * scale)
        module.weight.copy_(scale * (1.0 + module.eps) ** 0.5)
        module.running_mean.zero_()
        module.running_var.fill_(1.0)
        count += 1
    return count
