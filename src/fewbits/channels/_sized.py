"""Channel rules of operations that ask for sizes, or are told them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from fewbits.channels import _rules as rules
from fewbits.channels._carried import Held, argument, parts_of, plain
from fewbits.channels._carrier import Carrier
from fewbits.channels._labels import varying
from fewbits.channels._rules import Extent
from fewbits.channels.heads import heads_of
from fewbits.channels.surgery import told as outputs_told
from fewbits.graph import place_of


class Sized(Carrier):
    """Knows what becomes of channels where tensors are laid out anew, and which numbers count them."""

    def _size(self, node: fx.Node, result: Any) -> Any:
        """Sizes of tensors, and parts of tuples; ``None`` for what is neither."""
        target, carried = node.target, self._of(node.args[0])
        if (target is getattr and node.args[1] == "shape") or target == "size":
            extents = self._extents(self._labels(node.args[0]))
            asked = argument(node, 1, "dim", None) if target == "size" else None
            return extents if asked is None else extents[asked]
        if target is getattr and isinstance(carried, tuple) and node.args[1] in ("values", "indices"):
            return carried[0 if node.args[1] == "values" else 1]
        if target is operator.getitem and isinstance(carried, tuple):
            return carried[index] if isinstance(index := node.args[1], int | slice) else NotImplemented
        if target is operator.floordiv and isinstance(carried, Extent):
            divisor = node.args[1]
            if isinstance(divisor, int) and divisor > 0:
                return Extent(carried.labels, carried.per * divisor, carried.times)
            self._fix_extents(node, f"{node.name} computes with their number")
            return plain(result)
        return None

    def _times(self, node: fx.Node) -> Extent | None:
        """A size that the forward pass takes some times, if this is one."""
        if node.target is not operator.mul or len(node.args) != 2:
            return None
        size, times = map(self._of, node.args)
        size, times = (times, size) if isinstance(size, int) else (size, times)
        whole = isinstance(size, Extent) and isinstance(times, int) and times > 0
        return Extent(size.labels, size.per, size.times * times) if whole else None

    def _sized(self, node: fx.Node, x: Tensor, shape: tuple[int, ...], why: str) -> Tensor:
        given = node.args[1:] or tuple(v for k, v in node.kwargs.items() if k != "input")
        whole = self._of(given[0]) if len(given) == 1 else None
        sizes = whole if isinstance(whole, tuple | list) else given
        labels = self.known.roots(x)
        moved = labels.expand(shape) if node.target == "expand" else labels.reshape(shape)
        if len(sizes) != len(shape):
            return rules.settled(self.known, moved, [False] * len(shape), why)
        free = [self._free(size) for size in sizes]
        if any(size is False for size in free):
            for axis in self._counted(node, sizes):
                free[axis] = True
        if node.target == "expand":  # an axis that keeps its size need not be written as -1
            old = [1] * (len(shape) - labels.dim()) + list(labels.shape)
            varies = {a + len(shape) - labels.dim() for a in varying(labels)}
            free = [f if a in varies or old[a] != 1 else True for a, f in enumerate(free)]
        return rules.settled(self.known, moved, free, why)

    def _counted(self, node: fx.Node, sizes: Any) -> list[int]:
        """Axes of a reshape whose sizes are attributes: outputs of a layer, heads, or the numbers in all of them."""
        if not self.guesses or not all(isinstance(size, int | Extent | fx.Node) for size in sizes):
            return []
        module = self.model.get_submodule(place_of(node))
        heads, outputs = heads_of(module), outputs_told(module)
        if heads is None:
            found = [axis for axis, size in enumerate(sizes) if type(size) is int and size == outputs]
            self.guessed |= bool(found)
            return found
        found = [
            axis
            for axis, (size, after) in enumerate(zip(sizes, (*sizes[1:], None), strict=True))
            if type(size) is int
            and ((size in heads.counts.values() and after == heads.size) or size in heads.widths.values())
        ]
        self.guessed |= bool(found)
        return found

    def _in_widths(self, node: fx.Node, size: Any) -> bool:
        """Whether a size is an attribute that counts the numbers of all heads."""
        heads = heads_of(self.model.get_submodule(place_of(node))) if self.guesses else None
        found = heads is not None and type(size) is int and size in heads.widths.values()
        self.guessed |= found
        return found

    def _sizes_of(self, argument: Any) -> Tensor:
        """Labels of a tensor that is asked for its shape alone: of the network's own along its first axis."""
        held = self._of(argument)
        if not isinstance(held, Held):
            return self._labels(argument)
        return rules.spread(self.known.roots(self.ledger.axis(held.tensor, 0)), 0, tuple(held.tensor.shape))

    def _unflattened(self, node: fx.Node, x: Tensor, shape: tuple[int, ...], why: str) -> Any:
        axis, sizes = argument(node, 1, "dim", None), argument(node, 2, "sizes", None)
        sizes = node.kwargs.get("unflattened_size", sizes)
        if not isinstance(axis, int) or not isinstance(sizes, tuple | list):
            return NotImplemented
        axis %= x.dim()
        free: list[bool | Extent] = [True] * len(shape)
        free[axis : axis + len(sizes)] = [self._free(size) for size in sizes]
        return rules.settled(self.known, self.known.roots(x).reshape(shape), free, why)

    def _free(self, size: Any) -> bool | Extent:
        extent = self._of(size)
        return extent if isinstance(extent, Extent) else bool(extent == -1)

    def _extents(self, labels: Tensor) -> tuple[Extent, ...]:
        labels = self.known.roots(labels)
        axes = varying(labels)
        blank = torch.zeros_like
        return tuple(
            Extent(labels.movedim(a, 0).flatten(1)[:, 0] if a in axes else blank(labels.movedim(a, 0).flatten(1)[:, 0]))
            for a in range(labels.dim())
        )

    def _fix_extents(self, node: fx.Node, why: str) -> None:
        """The number of channels decides what comes out: it may not change."""
        for given in node.all_input_nodes:
            for extent in parts_of(self.carried.get(given), Extent):
                self.known.fix(extent.labels, why)
