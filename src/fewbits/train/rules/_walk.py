"""Runs some nodes of a network's graph, as the network itself runs them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.graph import arguments
from fewbits.graph.traced import DROPOUTS

_WRITES = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class Walk:
    """Calls a network's layers and operations in the order of its graph.

    Args:
        modules: of the network, by path.
    """

    def __init__(self, network: nn.Module, modules: Mapping[str, nn.Module], graph: fx.Graph) -> None:
        self.network, self.modules = network, modules
        dropouts = [node for node in graph.nodes if is_dropout(node, modules)]
        self._draws = {node: number for number, node in enumerate(dropouts)}
        self._seed: int | None = None
        self._counted: set[fx.Node] = set()

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Inside, dropout draws the same at every call, and running statistics see the first call only."""
        outer = self._seed, self._counted
        # a network that drops nothing leaves the random numbers alone
        self._seed, self._counted = (int(torch.randint(2**31, ())) if self._draws else 0), set()
        try:
            yield
        finally:
            self._seed, self._counted = outer

    def run(self, nodes: Sequence[fx.Node], given: fx.Node, value: Tensor, wanted: fx.Node) -> Any:
        """The value of one of some nodes, where that of ``given``, before them, is known."""
        if any(in_place(node, self.modules) for node in nodes):
            value = value.clone()  # what a block is given stays
        known: dict[fx.Node, Any] = {given: value}

        def read(node: fx.Node) -> Any:
            if node not in known:  # what every block makes for itself
                known[node] = len(value) if is_samples(node) else self.attribute(str(node.target))
            return known[node]

        for node in nodes:
            if node.op in ("get_attr", "placeholder") or is_samples(node):
                continue
            args = fx.node.map_arg(node.args, read)
            if node.op == "output":
                known[node] = args[0]
            else:
                known[node] = self._call(node, args, fx.node.map_arg(node.kwargs, read))
        return known[wanted]

    def attribute(self, path: str) -> Any:
        """A parameter, buffer or constant by its path."""
        return operator.attrgetter(path)(self.network)

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        with self._same(node):
            if node.op == "call_module":
                return self.modules[str(node.target)](*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target)
            return node.target(*args, **kwargs)

    @contextmanager
    def _same(self, node: fx.Node) -> Iterator[None]:
        if self._seed is None:
            yield
            return
        again = [self.modules[str(node.target)]] if node.op == "call_module" and node in self._counted else []
        self._counted.add(node)
        with uncounted(again), fixed(self._seed + self._draws[node]) if node in self._draws else nullcontext():
            yield


@contextmanager
def uncounted(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, normalisations that train leave their running statistics alone."""
    counting: list[Any] = [m for m in modules if m.training and getattr(m, "track_running_stats", False)]
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True


@contextmanager
def fixed(seed: int) -> Iterator[None]:
    """Inside, random numbers of a seed; afterwards they go on as before."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        yield


def is_dropout(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node drops at random."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.modules.dropout._DropoutNd)
    return node.op == "call_function" and node.target in DROPOUTS


def is_samples(node: fx.Node) -> bool:
    """Whether a node is the number of samples: ``x.size(0)``, ``x.shape[0]``."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,) or dict(node.kwargs) == {"dim": 0}
    if node.op != "call_function" or node.target is not operator.getitem or node.args[1] != 0:
        return False
    shape = node.args[0]
    assert isinstance(shape, fx.Node)
    if shape.op == "call_method":
        return shape.target == "size" and not shape.args[1:] and not shape.kwargs
    return shape.op == "call_function" and shape.target is getattr and shape.args[1] == "shape"


def in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node may write over what it is given."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    return node.target in _WRITES or name.endswith("_") or bool(arguments(node).get("inplace"))
