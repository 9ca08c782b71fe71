"""A network as a chain of blocks, for rules that go through it layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.errors import UnsupportedError
from fewbits.graph import graph_of
from fewbits.graph.traced import defaults_of
from fewbits.task.batches import called
from fewbits.train.rules._cuts import ends_of, free_nodes, is_activation, is_norm
from fewbits.train.rules._walk import Walk
from fewbits.weights import WEIGHTED

Errors = Tensor | Callable[[Tensor], Tensor]


class Block:
    """A part of a network with one way in and one way out, both single tensors ``[n, ...]``.

    What it computes is ``after(layer(before(x)))`` where it has one layer and nothing goes around that. It reads
    weights as they are at each call: of a plan that is held, the clustered or masked ones.

    Attributes:
        name: path of its first layer. number: from 0. last: whether it gives the network's outputs.
        layers: its linear and convolutional layers by path, in the order of calls.
    """

    def __init__(self, chain: Chain, number: int, nodes: Sequence[fx.Node], given: fx.Node) -> None:
        self._chain, self.number, self._nodes, self._given = chain, number, list(nodes), given
        self.last = nodes[-1].op == "output"
        self._calls = [node for node, module in self._modules() if isinstance(module, WEIGHTED)]
        self.layers = {str(node.target): chain.modules[str(node.target)] for node in self._calls}
        self.name = next(iter(self.layers), type(chain.network).__name__)
        active = len(nodes) > 1 and is_activation(nodes[-1], chain.modules)
        self._until = len(nodes) - 1 if active else len(nodes)
        self._driven = nodes[-1].all_input_nodes[0] if active else nodes[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs of the block for its inputs, which are not written over."""
        found: Tensor = self._chain.walk.run(self._nodes, self._given, x, self._nodes[-1])
        return found

    @property
    def layer(self) -> nn.Module:
        """The only layer of the block, through which everything goes.

        Raises:
            UnsupportedError: it has none or several, or something goes around it; the message names the layers.
        """
        why = self.why_not_one
        if why:
            raise UnsupportedError(why)
        return self.layers[self.name]

    @property
    def why_not_one(self) -> str:
        """Why the block is not one layer with something before and after it; empty if it is."""
        names, found = ", ".join(self.layers), self._chain
        for node, module in self._modules():
            known = isinstance(module, WEIGHTED) or is_norm(module)
            if not known and any(p.dim() > 1 for p in module.parameters()):
                return f"{node.target} ({type(module).__name__}) is no linear or convolutional layer"
        for node in self._nodes:
            if node.op == "get_attr" and getattr(found.walk.attribute(str(node.target)), "ndim", 0) > 1:
                return f"the network's forward computes with {node.target} itself, not through a layer"
        if not self.layers:
            return f"{self.name} has no linear or convolutional layer"
        if len(self._calls) > 1:
            return f"the layers {names} lie on paths that run side by side, or one is called twice; no cut parts them"
        before, after = self._nodes[: self._at], self._nodes[self._at + 1 :]
        around = {self._given, *before} - found.free
        if any(read in around for node in after if node not in found.free for read in node.all_input_nodes):
            return f"a path leads around layer {names}"
        return ""

    def before(self, x: Tensor) -> Tensor:
        """Inputs of :attr:`layer` for inputs of the block."""
        node = self._calls[0].all_input_nodes[0] if self.layer else self._given
        found: Tensor = self._chain.walk.run(self._nodes[: self._at], self._given, x, node)
        return found

    def after(self, a: Tensor) -> Tensor:
        """Outputs of the block for outputs of :attr:`layer`, which are not written over."""
        call = self._calls[0] if self.layer else self._given
        found: Tensor = self._chain.walk.run(self._nodes[self._at + 1 :], call, a, self._nodes[-1])
        return found

    def drive(self, x: Tensor) -> Tensor:
        """What the block's last activation gets for inputs of the block; without one, the block's outputs."""
        found: Tensor = self._chain.walk.run(self._nodes[: self._until], self._given, x, self._driven)
        return found

    def activate(self, a: Tensor) -> Tensor:
        """Outputs of the block for those of :meth:`drive`."""
        found: Tensor = self._chain.walk.run(self._nodes[self._until :], self._driven, a, self._nodes[-1])
        return found if self._until < len(self._nodes) else a

    def pull(self, x: Tensor, errors: Errors, *, learn: bool = True) -> Tensor:
        """``J^T errors`` with the Jacobian of the block at ``x`` with respect to its inputs, shaped as they are.

        Args:
            errors: of the shape of the block's outputs, or a function that gives them for its outputs.
            learn: whether parameters get ``J^T errors``, too, added to
                their ``.grad``. The graph of this block is made for it, and gone afterwards.
        """
        return self._pulled(self, x, errors, learn)

    def pull_drive(self, x: Tensor, errors: Errors, *, learn: bool = True) -> Tensor:
        """:meth:`pull` of :meth:`drive`."""
        return self._pulled(self.drive, x, errors, learn)

    @torch.no_grad()
    def pull_activation(self, x: Tensor, errors: Errors) -> None:
        """What the activation itself trains learns from errors of the block's outputs, for inputs of the block."""
        acting = [module for node, module in self._modules() if node in self._nodes[self._until :]]
        if any(p.requires_grad for module in acting for p in module.parameters()):
            self._pulled(self.activate, self.drive(x), errors, learn=True)

    def _pulled(self, compute: Callable[[Tensor], Tensor], x: Tensor, errors: Errors, learn: bool) -> Tensor:
        x = x.detach().requires_grad_(x.is_floating_point())
        parameters = self.parameters() if learn else []
        wanted = [t for t in (x, *parameters) if t.requires_grad]
        with torch.enable_grad():
            y = compute(x)
        if not isinstance(errors, Tensor):
            errors = errors(y.detach())
        found = torch.autograd.grad(y, wanted, errors.to(y.dtype), allow_unused=True) if wanted else ()
        by_id = {id(tensor): slope for tensor, slope in zip(wanted, found, strict=True) if slope is not None}
        for parameter in parameters:
            slope = by_id.get(id(parameter))
            if slope is not None:
                parameter.grad = slope if parameter.grad is None else parameter.grad + slope
        return by_id.get(id(x), torch.zeros_like(x)).detach()

    def parameters(self) -> list[nn.Parameter]:
        """All that it trains, once each: of weights behind a plan, the background weights."""
        found: list[Any] = [p for _, module in self._modules() for p in module.parameters()]
        found += [self._chain.walk.attribute(str(n.target)) for n in self._nodes if n.op == "get_attr"]
        own = [p for p in found if isinstance(p, nn.Parameter) and p.requires_grad]
        return list({id(p): p for p in own}.values())

    @property
    def _at(self) -> int:
        return self._nodes.index(self._calls[0])

    def _modules(self) -> Iterator[tuple[fx.Node, nn.Module]]:
        for node in self._nodes:
            if node.op == "call_module":
                yield node, self._chain.modules[str(node.target)]


class Chain(Sequence[Block]):
    """The blocks of a network, in order; what one gives the next takes, and the last gives the network's outputs.

    Attributes:
        network: whose layers they call. modules: by path. walk: what runs them. free: nodes that every block has.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph, *, pooled: bool = True) -> None:
        self.network, self.modules = network, dict(network.named_modules())
        self.walk, self.free = Walk(network, self.modules, graph), free_nodes(graph)
        given = [node for node in graph.nodes if node.op == "placeholder" and node.users]
        if len(given) != 1:
            raise UnsupportedError(
                f"{type(network).__name__} takes {len(given)} inputs; a rule that goes through it layer by layer takes "
                "one tensor"
            )
        nodes = [node for node in graph.nodes if node.op != "placeholder"]
        self._argument = str(given[0].target)
        self._blocks: list[Block] = []
        start, way_in = 0, given[0]
        for end in (*ends_of(nodes, given[0], self.modules, self.free, pooled), len(nodes) - 1):
            self._blocks.append(Block(self, len(self._blocks), nodes[start : end + 1], way_in))
            start, way_in = end + 1, nodes[end]

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, place: Any) -> Any:
        return self._blocks[place]

    @contextmanager
    def steady(self) -> Iterator[Chain]:
        """Inside, blocks that are called again drop what they dropped first, and count no statistics anew."""
        with self.walk.steady():
            yield self

    def enter(self, inputs: Any) -> Tensor:
        """The inputs of a batch as the first block takes them.

        Raises:
            UnsupportedError: they are more than one tensor.
        """
        args, kwargs = called(inputs)
        found = args[0] if args else kwargs.get(self._argument)
        if len(args) + len(kwargs) == 1 and isinstance(found, Tensor):
            return found
        raise UnsupportedError(
            f"a batch has other inputs than one tensor; a rule that goes layer by layer takes {self._argument} alone, "
            "and backprop takes any"
        )

    @torch.no_grad()
    def activations(self, x: Tensor) -> list[Tensor]:
        """The inputs, and what every block gives: ``len(self) + 1`` tensors without a graph."""
        found = [x]
        for block in self:
            found.append(block(found[-1]))
        return found

    def check(self, rule: str) -> None:
        """Raise UnsupportedError, naming the layer, unless every block is one layer; for rules that need that."""
        for block in self:
            if block.why_not_one:
                raise UnsupportedError(f"{rule} trains networks of one layer behind another: {block.why_not_one}")


def blocks_of(network: nn.Module, *, pooled: bool = True) -> Chain:
    """A feed-forward network as a chain of blocks, each with as few layers as its structure allows.

    A block begins with what leads to its layer (flattening, dropout) and ends with the activation behind it. Where
    paths run side by side, as in residual networks, the block holds all of them.

    Args:
        network: read in the mode (training or evaluation) that it is in.
        pooled: whether pooling that follows the activation belongs to the block, else to the next one.

    Raises:
        UnsupportedError: torch.fx cannot read it, or it takes several inputs (others that have defaults have these).
    """
    if isinstance(network, WEIGHTED):  # a layer is a network of one
        network = nn.Sequential(network)
    way = "a rule that goes layer by layer cannot train it, backprop can"
    return Chain(network, graph_of(network, fixed=defaults_of(network), way=way), pooled=pooled)
