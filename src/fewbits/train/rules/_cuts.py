"""Where a network's graph can be cut into blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import fx, nn

from fewbits.graph.traced import FUNCTIONS, METHODS, Kind, kind_of_module
from fewbits.train.rules._walk import is_dropout, is_samples
from fewbits.weights import WEIGHTED

Modules = Mapping[str, nn.Module]

_NONLINEAR = (
    nn.PReLU, nn.Mish, nn.CELU, nn.LogSigmoid, nn.Softsign, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink,
    nn.Threshold, nn.RReLU, nn.Softmax, nn.LogSoftmax, nn.Softmin,
)  # fmt: skip


def free_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that every block makes for itself: numbers of samples, and what forward reads of the network."""
    found = {node for node in graph.nodes if node.op == "get_attr" or is_samples(node)}
    shapes = {node.args[0] for node in found if node.op == "call_function"}
    return found | {node for node in shapes if isinstance(node, fx.Node) and node.users.keys() <= found}


def ends_of(nodes: Sequence[fx.Node], given: fx.Node, modules: Modules, free: set[fx.Node], pooled: bool) -> list[int]:
    """Places of the last nodes of all blocks but the last.

    Args:
        nodes: of the whole network, the outputs last. given: its inputs.
    """
    cuts = _cuts(nodes, given, free)
    layers = [i for i, node in enumerate(nodes) if isinstance(_module(node, modules), WEIGHTED)]
    ends = []
    for here, there in pairwise(layers):
        allowed = [i for i in range(here, there) if i in cuts]
        if allowed:
            wanted = _end(nodes, here, there, modules, pooled)
            ends.append(min(allowed, key=lambda i: (abs(i - wanted), i)))
    return ends


def _cuts(nodes: Sequence[fx.Node], given: fx.Node, free: set[fx.Node]) -> set[int]:
    """Places behind which nothing but the value there is read of what was before."""
    place = {node: i for i, node in enumerate(nodes)}
    last = {node: max((place[u] for u in node.users if u not in free), default=-1) for node in (given, *nodes)}
    reach, found = last[given], set()
    for i, node in enumerate(nodes):
        if node in free:
            continue
        if reach <= i < last[node]:
            found.add(i)
        reach = max(reach, last[node])
    return found


def _end(nodes: Sequence[fx.Node], here: int, there: int, modules: Modules, pooled: bool) -> int:
    """The last activation between two layers, and the pooling behind it; where there is none, the normalisation."""
    active = [i for i in range(here + 1, there) if is_activation(nodes[i], modules)]
    end = max(active, default=here)
    for i in range(end + 1, there):
        if not ((pooled and _named(nodes[i], modules, "pool")) or (not active and _named(nodes[i], modules, "norm"))):
            break
        end = i
    return end


def is_norm(module: nn.Module) -> bool:
    """Whether a layer normalises: its weights scale values one by one."""
    named = "norm" in type(module).__name__.lower()
    over = tuple(getattr(module, "normalized_shape", ()))  # several dimensions, of LayerNorm and RMSNorm
    return named and all(p.dim() < 2 or tuple(p.shape) == over for p in module.parameters())


def _module(node: fx.Node, modules: Modules) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None


def is_activation(node: fx.Node, modules: Modules) -> bool:
    """Whether a node is an activation."""
    module = _module(node, modules)
    if is_dropout(node, modules) or isinstance(module, nn.Identity):
        return False
    if module is not None:
        return isinstance(module, _NONLINEAR) or kind_of_module(module) == Kind.PASS
    known: Mapping[object, Kind] = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op, {})  # type: ignore[assignment]
    return known.get(node.target) == Kind.PASS


def _named(node: fx.Node, modules: Modules, word: str) -> bool:
    """Whether a node is pooling or normalisation, by the name of what it calls."""
    module = _module(node, modules)
    name = type(module).__name__ if module is not None else getattr(node.target, "__name__", "")
    return word in name.lower()
