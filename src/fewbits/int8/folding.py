"""Batch normalisation folded into the layer before it, for networks that only run forward from here on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.attach.attach import fold
from fewbits.graph.norm_pairs import pairs
from fewbits.graph.traced import graph_of
from fewbits.ops.swap import carry
from fewbits.weights import shared


def folded(model: nn.Module) -> tuple[fx.GraphModule, dict[str, Tensor]]:
    """A copy of a network without those batch normalisations that directly follow a linear or convolutional layer.

    In evaluation mode it computes the same, up to rounding. The copy is a ``torch.fx`` module in the user's names:
    folded layers have a bias, and nothing of what was folded is left. A normalisation stays where folding would take a
    number beyond the layer's type.

    Args:
        model: the network, plain or attached. It is not changed.

    Returns:
        The copy, in evaluation mode, and for each folded layer's path the float64 factor [channels] on its weights.

    Raises:
        UnsupportedError: the structure cannot be read by ``torch.fx``.
    """
    model = copy.deepcopy(model).eval()
    fold(model)
    graph = graph_of(model)
    modules = dict(model.named_modules())
    factors = {}
    several = shared(model)
    for before, node in pairs(graph, modules):
        layer, norm = modules[str(before.target)], modules[str(node.target)]
        if (layer, "weight") in several:
            continue  # another layer computes with it, too
        factor = fold_into(layer, norm)
        if factor is None:
            continue
        factors[str(before.target)] = factor
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    result = fx.GraphModule(model, graph, type(model).__name__)
    carry(model, result)
    return result.eval(), factors


@torch.no_grad()
def fold_into(layer: Any, norm: Any) -> Tensor | None:
    """``gamma (W x + b - mean) / sqrt(var + eps) + beta`` as one layer; returns gamma / sqrt(var + eps).

    ``None``, and nothing is changed, where a number of that layer would be beyond its type.
    """
    factor: Tensor = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    bias = layer.bias.double() if layer.bias is not None else torch.zeros_like(factor)
    bias = (bias - norm.running_mean.double()) * factor
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    shape = [-1] + [1] * (layer.weight.dim() - 1)
    weight = (layer.weight.double() * factor.view(shape)).to(layer.weight.dtype)
    bias = bias.to(layer.weight.dtype)
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        return None
    layer.weight.copy_(weight)
    layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
    return factor
