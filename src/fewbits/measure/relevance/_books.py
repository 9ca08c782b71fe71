"""The books that conservation is checked with: what stayed on the way, by module."""

from __future__ import annotations

from torch import Tensor

from fewbits.measure.relevance._nodes import Node, to_leaves
from fewbits.measure.relevance._tape import Tape


class Books:
    """Relevance that did not go on.

    Attributes:
        biases: what biases, shifts and other constants received. lost: that of outputs without a contribution which
            the rule hands relevance to. outputs: what arrived at weighted layers.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self.biases: dict[str, float] = {}
        self.lost: dict[str, float] = {}
        self.outputs: dict[str, float] = {}

    def add(self, book: dict[str, float], node: Node, amount: Tensor | float) -> None:
        """Add to one of the books under the module that made the node."""
        label = self._tape.path_of(node) or node.name()
        book[label] = book.get(label, 0.0) + (float(amount.sum()) if isinstance(amount, Tensor) else amount)

    def constant(self, node: Node, amount: Tensor | float) -> None:
        """Relevance of a constant."""
        if isinstance(amount, Tensor) or amount:
            self.add(self.biases, node, amount)

    def bias(self, node: Node, bias: Tensor, plus: Tensor | None, minus: Tensor | None) -> None:
        """The share of a bias, by the factors of a rule for positive and negative contributions."""
        if plus is not None:
            self.constant(node, bias.clamp(min=0) * plus)
        if minus is not None:
            self.constant(node, bias.clamp(max=0) * minus)

    def addend(self, node: Node, below: Node, output: int, c: Tensor) -> None:
        """An addend that is made of parameters, linearly: the sum of its relevance is that of theirs."""
        for variable, gradient in to_leaves(below, output, c):
            self.constant(node, gradient * variable.detach())
