"""What is known of each node before relevance arrives there: whether data flows through it, and to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fewbits.errors import RecipeError, did_you_mean
from fewbits.measure.relevance._handing import inside_linear
from fewbits.measure.relevance._nodes import (
    CONVOLUTIONS,
    GATES,
    SCALES,
    SOURCES,
    WITH_MEANS,
    Node,
    edges,
    kind,
)
from fewbits.measure.relevance._operands import reads_constants
from fewbits.measure.relevance._tape import Tape


class Signals:
    """Marks on the nodes of one forward pass.

    Args:
        order: all nodes, each after those that it depends on.
        detach: whether gates are constants.
        inputs: whether relevance of the inputs is asked for.

    Attributes:
        uses: how many operations take a node's results.

    Raises:
        RecipeError: ``operations`` names a node that this network does not have.
    """

    def __init__(self, order: Sequence[Node], tape: Tape, *, detach: bool, inputs: bool) -> None:
        self._operations, self._detach = tape.operations, detach
        self._signal: dict[Node, bool] = {}
        self._wanted: dict[Node, bool] = {}
        self._weighted: dict[Node, bool] = {}
        self._means: set[Node] = set()  # their first output only scales
        self._scaled: dict[Node, Node] = {}  # a value through which no data flows -> the scale that data ends in
        self.uses: Counter[Node] = Counter()
        within = inside_linear(order)
        for node in order:
            self._mark(node, kind(node), node in tape.sources, node in within, inputs)
        self._check({kind(node) for node in order})

    def _check(self, kinds: set[str]) -> None:
        for name in self._operations:
            if isinstance(name, str) and name not in kinds:
                raise RecipeError(
                    f"operations: {name!r} is no node of this network's autograd graph{did_you_mean(name, kinds)}"
                )

    def _mark(self, node: Node, name: str, given: bool, linear: bool, inputs: bool) -> None:
        below = [n for n, _ in edges(node)]
        self.uses.update(n for n in below if n is not None)
        if name in WITH_MEANS and name not in self._operations:
            self._means.add(node)
        source = given or name in SOURCES or reads_constants(node, name)
        flows = [self.flows(node, i) for i in range(len(below))]
        self._signal[node] = source or (any(flows) and (linear or not self._stops(name)))
        if not self._signal[node] and (scale := self._scale_of(node, name, any(flows))) is not None:
            self._scaled[node] = scale
        parameters = not given and any(n is not None and not f for n, f in zip(below, flows, strict=True))
        behind = [n for n, f in zip(below, flows, strict=True) if n is not None and f]
        multiplies = name in CONVOLUTIONS or name in ("Mm", "Addmm", "Bmm", "Baddbmm")
        self._weighted[node] = multiplies or any(self._weighted[n] for n in behind)
        asked = name in SOURCES or parameters or (source and inputs) or any(self._wanted[n] for n in behind)
        self._wanted[node] = self._signal[node] and asked

    def _stops(self, name: str) -> bool:
        how = self._operations.get(name)
        return how == "scale" or (how is None and (name in SCALES or (self._detach and name in GATES)))

    def _scale_of(self, node: Node, name: str, ends: bool) -> Node | None:
        """The scale that data ends in, here or before; gates and what a user calls a scale are constants on purpose."""
        if self._operations.get(name) == "scale":
            return None
        if ends:
            return node if name in SCALES else None
        return next((s for i in range(len(edges(node))) if (s := self.scale(node, i)) is not None), None)

    def carries(self, node: Node) -> bool:
        """Whether data flows through a node."""
        return self._signal[node]

    def wanted(self, node: Node) -> bool:
        """Whether something behind a node is asked for relevance."""
        return self._wanted[node]

    def weighted(self, node: Node) -> bool:
        """Whether there is a weighted operation at a node or behind it."""
        return self._weighted[node]

    def flows(self, node: Node, operand: int) -> bool:
        """Whether an operand of a node carries data."""
        below, output = edges(node)[operand]
        return below is not None and self._signal[below] and not (below in self._means and output == 0)

    def scale(self, node: Node, operand: int) -> Node | None:
        """The scale that an operand is made of, if it is."""
        below, output = edges(node)[operand]
        return below if below in self._means and output == 0 else self._scaled.get(below)

    def scaled(self, node: Node) -> Node | None:
        """The scale that a node's value is made of, if it is."""
        return self._scaled.get(node)
