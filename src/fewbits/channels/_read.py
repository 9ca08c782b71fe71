"""Channel dependencies of a network, read from its traced graph."""

from __future__ import annotations

import operator
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from fewbits.channels import _functional as functional
from fewbits.channels import _rules as rules
from fewbits.channels import _tables as tables
from fewbits.channels._carried import Held, argument, each, fits, name_of, plain
from fewbits.channels._labels import varying
from fewbits.channels._layers import fixed, layer_norm, layer_rule
from fewbits.channels._sized import Sized
from fewbits.channels._trial import sound
from fewbits.channels.dependencies import Dependencies
from fewbits.channels.responses import is_response
from fewbits.channels.surgery import told as outputs_told
from fewbits.errors import SelectionError, UnsupportedError
from fewbits.graph import OPENED, VALUE, graph_of, place_of
from fewbits.graph.traced import placed
from fewbits.task.batches import called, sample_of, told
from fewbits.task.structure import recorded_on


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
    size open, and nothing where both are written as numbers; but whole heads where the number is an attribute of the
    module that :mod:`fewbits.channels.heads` knows, and a trial removal bears that out. ``nn.MultiheadAttention`` stays
    as it is. A network that ``torch.fx`` cannot trace is watched in one run instead.

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
    modes = {module: module.training for module in model.modules()}
    inputs = sample_of(input_shape, next(model.parameters()))
    model.eval()
    try:
        return _found(model, inputs)
    except _StoppedError as stopped:
        raise UnsupportedError(
            f"channels of {type(model).__name__} cannot be read: {stopped.where} does not take a single sample of "
            f"{told(input_shape)} in evaluation mode ({' '.join(str(stopped.__cause__).split())}); leave channels out: "
            "clusters and pruning do without"
        ) from stopped.__cause__
    finally:
        for module, mode in modes.items():
            module.training = mode


def _found(model: nn.Module, inputs: Any) -> Dependencies:
    """From the traced graph; from a recorded run where there is none, or where it has layers of several operations."""
    try:
        graph = graph_of(model)
    except UnsupportedError:
        graph = None
    if graph is not None:
        try:
            return _tried(model, graph, inputs)
        except UnsupportedError:
            if not any(isinstance(module, OPENED) for module in model.modules()):
                raise
    try:
        graph = recorded_on(model, inputs)
    except Exception as error:  # whatever the user's operation raises
        raise _StoppedError(type(model).__name__) from error
    return _tried(model, graph, inputs)


def _tried(model: nn.Module, graph: fx.Graph, inputs: Any) -> Dependencies:
    """What a graph says. That attributes count heads is a guess by their names, which a trial proves or ends."""
    guess = _Reader(model, graph)
    guess.read(inputs)
    if guess.guessed:
        with suppress(UnsupportedError):
            found = guess.ledger.found()
            if sound(model, found, inputs):
                return found
        guess = _Reader(model, graph, guesses=False)
        guess.read(inputs)
    return guess.ledger.found()


class _StoppedError(Exception):
    """The network itself does not run."""

    def __init__(self, where: str) -> None:
        self.where = where


class _Reader(Sized):
    """Runs the graph, and carries labels along."""

    def read(self, inputs: Any) -> None:
        """Go through the graph: with inputs, or over what a recorded run has left."""
        if any(VALUE in node.meta for node in self.graph.nodes):
            for node in self.graph.nodes:
                self.run_node(node)
        else:
            self.run(*placed(self.graph, *called(inputs)))

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = self.env[n] = n.meta[VALUE] if VALUE in n.meta else super().run_node(n)
        except Exception as error:  # whatever the user's operation raises
            raise _StoppedError(name_of(n, self.model)) from error
        self.carried[n] = self._rule(n, result)
        return result

    # -- one operation --------------------------------------------------------------------------------

    def _rule(self, node: fx.Node, result: Any) -> Any:
        if node.op == "get_attr" and id(result) in self.ledger.axes:
            return Held(result, tuple(result.shape))
        if node.op in ("placeholder", "get_attr"):
            return plain(result)
        if node.op == "output":
            self._fix(node.args, "it is an output of the network")
            return None
        why = name_of(node, self.model)
        if (size := self._times(node)) is not None:
            return size
        if node.target not in tables.SIZES:
            self._fix_extents(node, f"{why} computes with their number")
        found = self._module(node, result, why) if node.op == "call_module" else self._known_rule(node, result, why)
        if found is not NotImplemented and fits(found, result):
            return found
        self._fix((node.args, node.kwargs), f"{why} has no rule")
        return plain(result)

    def _module(self, node: fx.Node, result: Any, why: str) -> Any:
        path = str(node.target)
        module = self.model.get_submodule(path)
        found = NotImplemented
        if len(node.all_input_nodes) == 1 and node.args[:1] == tuple(node.all_input_nodes):
            found = layer_rule(self.ledger, module, path, self._labels(node.args[0]), result, why)
        if found is NotImplemented or not fits(found, result):
            fixed(self.ledger, module, f"{why} has no rule")
            return NotImplemented
        return found

    def _known_rule(self, node: fx.Node, result: Any, why: str) -> Any:
        target, known = node.target, self.known
        if (own := self._own_again(node, result, why)) is not None:
            return own
        if (target is getattr and node.args[1] in tables.ABOUT) or target in tables.RANKS:
            return plain(result)
        if target in (getattr, "size", operator.getitem, operator.floordiv):
            found = self._size(node, result)
            if found is not None:
                return found
        if not any(isinstance(self.carried.get(n), Tensor | tuple | Held) for n in node.all_input_nodes):
            return plain(result)
        if target in tables.BINARY and isinstance(result, Tensor):
            a, b = self._operands(node, node.args[:2], divides=target in tables.DIVIDES)
            return rules.combined(known, a, b, why)
        if target in tables.TERNARY and isinstance(result, Tensor) and len(node.args) == 3:
            a, b, c = self._operands(node, node.args)
            return rules.combined(known, rules.combined(known, a, b, why), c, why)
        if target in tables.MATMUL:
            a, b = self._labels(node.args[0]), self._labels(node.args[1])
            return self._product(a, b, why) if min(a.dim(), b.dim()) >= 2 else NotImplemented
        if target in tables.JOINS:
            return rules.concatenated(known, self._parts(node), argument(node, 1, "dim", 0), why)
        if target in tables.STACKS:
            return rules.stacked(known, self._parts(node), argument(node, 1, "dim", 0), why)
        if target in functional.CONVOLVED or target is torch.addmm:
            return self._layer(node, result, why)
        given = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
        return self._of_one(node, self._labels(given), result, why) if self._is_tensor(given) else NotImplemented

    def _of_one(self, node: fx.Node, x: Tensor, result: Any, why: str) -> Any:
        """Operations with one tensor that counts."""
        target, known = node.target, self.known
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        if target in tables.UNARY:
            return known.roots(x)
        if target in tables.SIZED:
            return self._sized(node, x, shape, why)
        if target in tables.LIKE:
            return rules.settled(known, known.roots(x).reshape(shape), self._extents(self._sizes_of(node.args[1])), why)
        if target in tables.UNFLATTENED:
            return self._unflattened(node, x, shape, why)
        if target is F.pixel_shuffle:
            return rules.pixels(known, self._same(node, known.roots(x)), why)
        if target in tables.FREE or (target is getattr and node.args[1] in tables.TRANSPOSED):
            moved = self._same(node, known.roots(x))
            return rules.settled(known, moved, [True] * moved.dim(), why)
        if target is operator.getitem:
            self._fix_extents(node, f"{why} computes with their number")
            return rules.sliced(known, x, self._values(node.args[1]), why)
        if target in tables.REDUCE or target in tables.NORMS:
            return self._reduced(node, x, result, why)
        if target in tables.ALONG:
            axis = argument(node, 2 if target is F.normalize else 1, "dim", 1 if target is F.normalize else None)
            return rules.softened(known, x, axis, why) if isinstance(axis, int) else NotImplemented
        if target in tables.PICKED:
            axis = argument(node, 2, "dims", None) if target in ("roll", torch.roll) else argument(node, 1, "dim", None)
            axis = axis[0] if isinstance(axis, tuple | list) and len(axis) == 1 else axis
            return rules.picked(known, x, self._same(node, x), axis, why) if isinstance(axis, int) else NotImplemented
        if target in tables.SPATIAL:
            vector = rules.channel_vector(known, x, 1, why)
            return each(result, lambda tensor: rules.spread(vector, 1, tuple(tensor.shape)))
        if target is F.pad:
            return self._pad(node, x, shape, why)
        if target is F.batch_norm:
            return self._normalised(node, x, shape, why)
        if target is F.layer_norm:
            return self._layer_normalised(node, x, why)
        if target is F.channel_shuffle:
            groups = argument(node, 1, "groups", None)
            return F.channel_shuffle(rules.shuffled(known, x, groups, why), groups)
        if target is F.glu:
            axis = argument(node, 1, "dim", -1)
            return rules.chunked(known, x, known.roots(x).chunk(2, axis), axis, why)[0]
        if target in ("chunk", torch.chunk):
            return rules.chunked(known, x, self._same(node, x), argument(node, 2, "dim", 0), why)
        if target in tables.SPLIT:
            axis = argument(node, 2, "dim", 0)
            if self._in_widths(node, argument(node, 1, "split_size", None)):
                return rules.chunked(known, x, self._same(node, x), axis, why)
            return tuple(rules.picked(known, x, part, axis, why) for part in self._same(node, x))
        if target in ("unbind", torch.unbind):
            whole = (slice(None),) * (argument(node, 1, "dim", 0) % x.dim())
            return tuple(rules.sliced(known, x, (*whole, i), why) for i in range(len(result)))
        if target == F.scaled_dot_product_attention:
            return self._attention(node, why)
        return NotImplemented

    # -- tensors of the network's own -----------------------------------------------------------------

    def _own_again(self, node: fx.Node, result: Any, why: str) -> Held | None:
        """A tensor of the network's own that is times a number, or laid out anew with its channels along one axis."""
        held = [found for found in map(self._of, node.args[:2]) if isinstance(found, Held)]
        if not isinstance(result, Tensor) or len(held) != 1:
            return None
        if node.target in tables.TIMES and any(isinstance(other, int | float) for other in map(self._of, node.args)):
            return held[0] if result.shape == held[0].shape else None
        if node.target in tables.SIZED and node.target != "expand" and isinstance(self._of(node.args[0]), Held):
            given: Any = node.args[1:]
            sizes = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
            if len(sizes) != result.dim():
                return None
            number = outputs_told(self.model.get_submodule(place_of(node))) if self.guesses else None
            free = [size == -1 or (type(size) is int and size == number) for size in sizes]
            found = functional.laid_out(self.ledger, held[0], tuple(result.shape), free, why)
            self.guessed |= found is not None and found.along is not None and sizes[found.along[0]] != -1
            return found
        return None

    def _layer(self, node: fx.Node, result: Any, why: str) -> Any:
        """A layer that a module of its kind computes by a function."""
        path = place_of(node)
        module, shape = self.model.get_submodule(path), tuple(result.shape)
        names = ("input", "mat1", "mat2") if node.target is torch.addmm else ("input", "weight", "bias")
        given = [self._of(argument(node, place, name, None)) for place, name in enumerate(names)]
        if node.target is torch.addmm:
            named = set(node.kwargs) - set(names)
            return NotImplemented if named else functional.turned(self.ledger, module, path, given, shape, why)
        return functional.layer_of(self.ledger, module, path, node.target, given, shape, why)

    def _layer_normalised(self, node: fx.Node, x: Tensor, why: str) -> Any:
        """Layer normalisation by a function, with tensors of the network's own or none."""
        axes = argument(node, 1, "normalized_shape", ())
        own = [self._of(argument(node, place, name, None)) for place, name in ((2, "weight"), (3, "bias"))]
        if not isinstance(axes, tuple | list) or any(not isinstance(part, Held | None) for part in own):
            return NotImplemented
        return layer_norm(self.ledger, x, len(axes), tuple(part and part.tensor for part in own), why)

    # -- other rules ----------------------------------------------------------------------------------

    def _attention(self, node: fx.Node, why: str) -> Any:
        """``softmax(q k^T + mask) v``; several heads of queries in turn may share one of keys and values."""
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), node.args, strict=False))
        given |= node.kwargs
        q, k, v = (self._labels(given[name]) for name in ("query", "key", "value"))
        if given.get("enable_gqa"):
            k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
        if given.get("scale") is None:  # then it depends on how many numbers a query has
            for labels in (q, k):
                if labels.dim() - 1 in varying(self.known.roots(labels)):
                    self.known.fix(labels, f"{why} scales by the length of a query")
        weights = self._product(q, k.mT, why)
        mask = given.get("attn_mask")
        if mask is not None:
            held = self._of(mask)
            own = self._own(held.tensor, [weights], why) if isinstance(held, Held) else self._labels(mask)
            weights = rules.combined(self.known, weights, own, why)
        return self._product(rules.softened(self.known, weights, -1, why), v, why)

    def _product(self, a: Tensor, b: Tensor, why: str) -> Tensor:
        """A matrix product of two values, whose multiplications go with the channels along one axis."""
        found = rules.product(self.known, a, b, why)
        total = found.numel() * a.shape[-1]
        for labels in map(self.known.roots, (a, b)):
            axes = varying(labels)
            if axes:
                vector = rules.channel_vector(self.known, labels, axes[0], why)
                self.ledger.products.append((vector, total // len(vector)))
                break
        return found

    def _operands(self, node: fx.Node, given: Any, divides: bool = False) -> list[Tensor]:
        """Labels of operands. A tensor of the network's own has channels where an operand beside it has them."""
        others = [self._labels(a) for a in given if not isinstance(self._of(a), Held)]
        found = []
        for place, operand in enumerate(given):
            held = self._of(operand)
            if isinstance(held, Held) and held.along is not None and not (divides and place):
                found.append(functional.labels_of(self.ledger, held))
            elif not isinstance(held, Held):
                found.append(self._labels(operand))
            else:  # a channel that goes must not divide by zero in the network that it is compared with
                found.append(self._own(held.tensor, [] if divides and place else others, name_of(node, self.model)))
        return found

    def _own(self, tensor: Tensor, others: list[Tensor], why: str) -> Tensor:
        found = torch.zeros(tuple(tensor.shape), dtype=torch.int64)
        axes = {a - other.dim() for other in others for a in varying(self.known.roots(other))}
        axes = {a for a in axes if -tensor.dim() <= a and tensor.shape[a] > 1}
        marked = self.ledger.axes[id(tensor)]
        if not axes and not others:
            self.ledger.fix(tensor, f"{why} uses it outside of a layer")
        if len(axes) != 1:
            self.ledger.fix(tensor, f"{why} uses it outside of a layer")
            return found
        axis = next(iter(axes)) % tensor.dim()
        if any(vector is not None for a, vector in enumerate(marked) if a != axis):
            self.ledger.fix(tensor, f"{why} uses it along two axes")
            return found
        return rules.spread(self.known.roots(self.ledger.axis(tensor, axis)), axis, tuple(tensor.shape))

    def _reduced(self, node: fx.Node, x: Tensor, result: Any, why: str) -> Any:
        place = 2 if node.target in tables.NORMS else 1
        axes = argument(node, place, "dim", argument(node, place, "axis", None))
        if isinstance(axes, fx.Node):
            return NotImplemented
        first = result if isinstance(result, Tensor) else result[0]
        axes = (axes,) if isinstance(axes, int) else tuple(range(x.dim())) if axes is None else axes
        if self.guesses and axes[-1:] in ((-1,), (1,)) and is_response(self.model.get_submodule(place_of(node))):
            self.guessed, x = True, plain(x)  # what surgery makes up for
        found = rules.reduced(self.known, x, axes, first.dim() == x.dim(), why)
        return found if isinstance(result, Tensor) else tuple(found for _ in result)

    def _normalised(self, node: fx.Node, x: Tensor, shape: tuple[int, ...], why: str) -> Any:
        """Batch normalisation by a function: its tensors have the channels of what it normalises."""
        vector = rules.channel_vector(self.known, x, 1, why)
        names = ("running_mean", "running_var", "weight", "bias")
        for given in (argument(node, place, name, None) for place, name in enumerate(names, 1)):
            held = self._of(given)
            if isinstance(held, Held):
                self.ledger.join(held.tensor, 0 if held.along is None else held.along[1], vector, why)
            elif isinstance(held, Tensor):
                self.known.fix(held, f"{why} has tensors that are computed")
                self.known.fix(vector, f"{why} has tensors that are computed")
        return rules.spread(self.known.roots(vector), 1, shape)

    def _pad(self, node: fx.Node, x: Tensor, shape: tuple[int, ...], why: str) -> Any:
        labels = self.known.roots(x)
        axes = varying(labels)
        if axes and labels.shape[axes[0]] != shape[axes[0]]:  # the number of new channels is fixed
            self.known.fix(labels, f"{why} pads channels by a fixed number (nn.ZeroPad3d would not)")
            return torch.zeros(shape, dtype=torch.int64)
        return (
            rules.spread(rules.channel_vector(self.known, x, axes[0], why), axes[0], shape)
            if axes
            else plain(torch.empty(shape, device="meta"))
        )
