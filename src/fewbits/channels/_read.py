"""Channel dependencies of a network, read from its traced graph."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from fewbits.channels import _rules as rules
from fewbits.channels._labels import varying
from fewbits.channels._ledger import Ledger
from fewbits.channels._rules import Extent
from fewbits.channels.dependencies import Dependencies
from fewbits.errors import SelectionError
from fewbits.graph.traced import Kind, graph_of, kind_of_module, placed
from fewbits.task.batches import called, sample_of

PADDING = (nn.ZeroPad3d, nn.ConstantPad3d)  # of images, they pad channels


@torch.no_grad()
def dependencies(model: nn.Module, input_shape: Any) -> Dependencies:
    """Which channels can be removed, and which of them only together.

    The graph is run once, on zeros, in evaluation mode, and beside each activation goes a tensor of labels that says
    which channel each element belongs to. A sum makes the labels of its operands one, a convolution gives out new ones,
    a reshape moves them. Layers that are used twice, and weights that layers share, have one set of labels.

    Channels stay (and :attr:`Dependencies.fixed` says why) where they are inputs or outputs of the network, where an
    operation normalises over them (LayerNorm, softmax), where the forward pass takes them by fixed numbers, and around
    operations without a rule, of which nothing is assumed. Attention written with linear layers loses whole heads where
    its reshape leaves their number open (``view(n, t, -1, size)``), the same places of all heads where it leaves their
    size open, and nothing where both are written as numbers. ``nn.MultiheadAttention`` stays as it is.

    Args:
        model: a plain network of one tensor to one tensor; not changed.
        input_shape: of one sample, without the batch; of other networks the inputs of a batch of one sample.

    Raises:
        UnsupportedError: the structure cannot be read, or nothing in it can be removed; the message says why.
        SelectionError: the network carries a plan.
    """
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise SelectionError(f"{path} carries a plan; fold it before channels are removed")
    reader = _Reader(model, graph_of(model))
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())
    model.eval()
    try:
        reader.run(*placed(reader.graph, *called(sample_of(input_shape, parameter))))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return reader.ledger.found()


class _Reader(fx.Interpreter):
    """Runs the graph, and carries labels along."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph, garbage_collect_values=False)
        self.extra_traceback = False
        self.model = model
        self.ledger = Ledger(model)
        self.known = self.ledger.known
        self.carried: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.carried[n] = self._rule(n, result)
        return result

    # -- one operation --------------------------------------------------------------------------------

    def _rule(self, node: fx.Node, result: Any) -> Any:
        if node.op in ("placeholder", "get_attr"):
            if id(result) in self.ledger.axes:
                self.ledger.fix(result, f"{node.target} is used outside of a layer")
            return rules.of_constant(result)
        if node.op == "output":
            self._fix(node.args, "it is an output of the network")
            return None
        why = f"{node.target if node.op == 'call_module' else node.name} ({_what(node, self.model)})"
        found = self._known_rule(node, result, why)
        if found is not NotImplemented:
            return found
        self._fix((node.args, node.kwargs), f"{why} has no rule")
        return _plain(result)

    def _known_rule(self, node: fx.Node, result: Any, why: str) -> Any:
        target, known = node.target, self.known
        if node.op == "call_module":
            return self._module(node, result, why)
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        if target is getattr and node.args[1] == "shape":
            return self._extents(self._labels(node.args[0]))
        if target == "size":
            extents = self._extents(self._labels(node.args[0]))
            asked = _argument(node, 1, "dim", None)
            return extents if asked is None else extents[asked]
        if target is operator.getitem and isinstance(carried := self._of(node.args[0]), tuple):
            index = node.args[1]
            return carried[index] if isinstance(index, int | slice) else NotImplemented
        if target is operator.floordiv and isinstance(extent := self._of(node.args[0]), Extent):
            divisor = node.args[1]
            return Extent(extent.labels, extent.per * divisor) if isinstance(divisor, int) and divisor > 0 else None
        if not any(isinstance(self.carried.get(n), Tensor | tuple) for n in node.all_input_nodes):
            return _plain(result)
        x = self._labels(node.args[0]) if node.args and isinstance(self._of(node.args[0]), Tensor) else None
        if target in rules.BINARY and isinstance(result, Tensor):
            return rules.combined(known, self._labels(node.args[0]), self._labels(node.args[1]), why)
        if target in rules.MATMUL:
            a, b = self._labels(node.args[0]), self._labels(node.args[1])
            return rules.product(known, a, b, why) if min(a.dim(), b.dim()) >= 2 else NotImplemented
        if target in (torch.cat, torch.concat):
            parts = [self._labels(part) for part in _argument(node, 0, "tensors", ())]
            return rules.concatenated(known, parts, _argument(node, 1, "dim", 0), why)
        if x is None:
            return NotImplemented
        if target in rules.UNARY:
            return known.roots(x)
        if target in rules.SIZED:
            return self._sized(node, x, shape, why)
        if target in rules.FREE:
            moved = self._same(node, known.roots(x))
            return rules.settled(known, moved, [True] * moved.dim(), why)
        if target is operator.getitem:
            return rules.sliced(known, x, node.args[1], why)
        if target in rules.REDUCE:
            return self._reduced(node, x, why)
        if target in rules.SOFTMAX:
            axis = _argument(node, 1, "dim", None)
            return rules.softened(known, x, axis, why) if isinstance(axis, int) else NotImplemented
        if target in rules.SPATIAL:
            return rules.spread(rules.channel_vector(known, x, 1, why), 1, shape)
        if target is F.pad:
            return self._pad(node, x, shape, why)
        if target in ("chunk", torch.chunk):
            return rules.chunked(known, x, self._same(node, x), _argument(node, 2, "dim", 0), why)
        if target in ("unbind", torch.unbind):
            whole = (slice(None),) * (_argument(node, 1, "dim", 0) % x.dim())
            return tuple(rules.sliced(known, x, (*whole, i), why) for i in range(len(result)))
        if target is F.scaled_dot_product_attention and len(node.args) >= 3:
            q, k, v = (self._labels(argument) for argument in node.args[:3])
            return rules.attention(known, q, k, v, node.kwargs.get("scale") is not None, why)
        return NotImplemented

    def _module(self, node: fx.Node, result: Any, why: str) -> Any:
        path, known = str(node.target), self.known
        module = self.model.get_submodule(path)
        kind = kind_of_module(module)
        if not isinstance(result, Tensor) or kind is None or len(node.args) != 1:
            return self._opaque(module, why)
        x, shape = self._labels(node.args[0]), tuple(result.shape)
        if kind is Kind.WEIGHTED:
            return self._weighted(module, path, x, shape, why)
        if kind is Kind.NORM:
            vector = rules.channel_vector(known, x, 1, why)
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if isinstance(tensor, Tensor):
                    self.ledger.join(tensor, 0, vector, why)
            return rules.spread(known.roots(vector), 1, shape)
        if kind is Kind.PASS:
            return known.roots(x)
        if isinstance(module, nn.Flatten):
            return rules.settled(known, module(known.roots(x)), [True] * len(shape), why)
        if isinstance(module, PADDING) and x.dim() == 4 and module.value == 0:
            before, after = module.padding[4:]
            if min(before, after) < 0:
                return NotImplemented
            if path not in self.ledger.paddings:
                self.ledger.paddings[path] = known.fresh(before), known.fresh(after)
            vector = rules.channel_vector(known, x, 1, why)
            return rules.padded(*self.ledger.paddings[path], rules.spread(vector, 1, (1, len(vector))), 1, shape)
        spatial = isinstance(module, nn.ZeroPad1d | nn.ZeroPad2d) or "Pool" in type(module).__name__
        if spatial or isinstance(module, nn.Upsample):
            same = rules.channel_vector(known, x, 1, why)
            return rules.spread(same, 1, shape) if len(same) == shape[1] else NotImplemented
        return NotImplemented

    def _opaque(self, module: nn.Module, why: str) -> Any:
        for tensor in (*module.parameters(), *module.buffers()):
            self.ledger.fix(tensor, f"{why} has no rule")
        return NotImplemented

    def _weighted(self, module: nn.Module, path: str, x: Tensor, shape: tuple[int, ...], why: str) -> Tensor:
        known, weight = self.known, module.weight
        assert isinstance(weight, Tensor)
        linear = isinstance(module, nn.Linear)
        axis = len(shape) - 1 if linear else 1
        inputs = rules.channel_vector(known, x, axis, why)
        groups = 1 if linear else int(module.groups)  # type: ignore[arg-type]
        self.ledger.outputs.setdefault(id(weight), f"{path}.weight")
        outputs = self.ledger.axis(weight, 0)
        if groups == 1:
            self.ledger.join(weight, 1, inputs, why)
        elif weight.shape[1] == 1:  # depthwise: an input goes with its own outputs
            known.join(inputs[:, None].expand(groups, -1), outputs.reshape(groups, -1), why)
            known.fix(self.ledger.axis(weight, 1), why)
        else:  # the same places of all groups, so that these stay equal
            self.ledger.join(weight, 1, inputs.reshape(groups, -1)[0], why)
            for vector in (inputs, outputs):
                rows = vector.reshape(groups, -1)
                known.join(rows[:1].expand_as(rows), rows, why)
        if isinstance(module.bias, Tensor):
            self.ledger.join(module.bias, 0, outputs, why)
        return rules.spread(known.roots(outputs), axis, shape)

    def _sized(self, node: fx.Node, x: Tensor, shape: tuple[int, ...], why: str) -> Tensor:
        given = node.args[1:] or tuple(node.kwargs.values())
        sizes = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
        labels = self.known.roots(x)
        moved = labels.expand(shape) if node.target == "expand" else labels.reshape(shape)
        if len(sizes) != len(shape):
            return rules.settled(self.known, moved, [False] * len(shape), why)
        free: list[bool | Extent] = []
        for size in sizes:
            extent = self._of(size)
            free.append(extent if isinstance(extent, Extent) else bool(size == -1))
        return rules.settled(self.known, moved, free, why)

    def _reduced(self, node: fx.Node, x: Tensor, why: str) -> Any:
        axes, keep = _argument(node, 1, "dim", None), bool(_argument(node, 2, "keepdim", False))
        axes = (axes,) if isinstance(axes, int) else tuple(range(x.dim())) if axes is None else axes
        return rules.reduced(self.known, x, axes, keep, why)

    def _pad(self, node: fx.Node, x: Tensor, shape: tuple[int, ...], why: str) -> Any:
        labels = self.known.roots(x)
        axes = varying(labels)
        if axes and labels.shape[axes[0]] != shape[axes[0]]:  # the number of new channels is fixed
            self.known.fix(labels, f"{why} pads channels by a fixed number (nn.ZeroPad3d would not)")
            return torch.zeros(shape, dtype=torch.int64)
        return (
            rules.spread(rules.channel_vector(self.known, x, axes[0], why), axes[0], shape)
            if axes
            else _plain(torch.empty(shape, device="meta"))
        )

    # -- helpers --------------------------------------------------------------------------------------

    def _of(self, argument: Any) -> Any:
        return self.carried.get(argument) if isinstance(argument, fx.Node) else argument

    def _labels(self, argument: Any) -> Tensor:
        found = self._of(argument)
        return found if isinstance(argument, fx.Node) and isinstance(found, Tensor) else rules.of_constant(found)

    def _same(self, node: fx.Node, labels: Tensor) -> Any:
        """What the operation does, done to the labels."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if node.op == "call_method":
            return getattr(labels, str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(labels, *args[1:], **kwargs)

    def _extents(self, labels: Tensor) -> tuple[Extent, ...]:
        labels = self.known.roots(labels)
        axes = varying(labels)
        blank = torch.zeros_like
        return tuple(
            Extent(labels.movedim(a, 0).flatten(1)[:, 0] if a in axes else blank(labels.movedim(a, 0).flatten(1)[:, 0]))
            for a in range(labels.dim())
        )

    def _fix(self, arguments: Any, why: str) -> None:
        def fix(node: fx.Node) -> fx.Node:
            for labels in _tensors(self.carried.get(node)):
                self.known.fix(labels, why)
            return node

        fx.node.map_arg(arguments, fix)


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.kwargs.get(name, node.args[position] if len(node.args) > position else default)


def _tensors(carried: Any) -> list[Tensor]:
    if isinstance(carried, Extent):
        return []
    if isinstance(carried, tuple | list):
        return [labels for part in carried for labels in _tensors(part)]
    return [carried] if isinstance(carried, Tensor) else []


def _plain(result: Any) -> Any:
    """Labels for a result whose channels all stay."""
    if isinstance(result, tuple | list) and not isinstance(result, torch.Size):
        return tuple(_plain(part) for part in result)
    return torch.zeros(tuple(result.shape), dtype=torch.int64) if isinstance(result, Tensor) else None


def _what(node: fx.Node, model: nn.Module) -> str:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))).__name__
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
