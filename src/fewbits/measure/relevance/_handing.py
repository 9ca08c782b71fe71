"""What each operation without weights of its own does with relevance per value: the table from nodes to rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from fewbits.errors import UnsupportedError
from fewbits.measure.relevance import _formulas as formulas
from fewbits.measure.relevance._composed import Composed, handed
from fewbits.measure.relevance._formulas import ELEMENTWISE, Handed
from fewbits.measure.relevance._nodes import (
    ADDENDS,
    BATCH_NORMS,
    NATIVE,
    PRODUCTS,
    WITH_MEANS,
    Node,
    edges,
    kinds,
    native,
)
from fewbits.measure.relevance._probe import is_homogeneous
from fewbits.measure.relevance._rules import Rules, stabilise
from fewbits.measure.relevance._tape import Tape, inside
from fewbits.measure.relevance._unknown import NoRuleError

_LINEAR_IN_PLACE = kinds(
    "copy_ __setitem__ add_ sub_ __iadd__ __isub__ zero_ fill_ masked_fill_ index_put_ relu_ index_add_ neg_"
)
_SCALING_IN_PLACE = kinds("mul_ div_ __imul__ __itruediv__")
_COMPOSED: Any = Composed._backward_cls


def inside_linear(order: Sequence[Node]) -> set[Node]:
    """Nodes inside of what is declared linear, of which none stops the data."""
    return set().union(*(inside(n) for n in order if isinstance(n, _COMPOSED) and n.how == "linear"))


class Handing:
    """Which rule each node follows.

    Args:
        flows: says whether data flows through an operand of a node.

    Attributes:
        forced: nodes inside of what is declared linear.
    """

    def __init__(self, tape: Tape, rules: Rules, flows: Callable[[Node, int], bool]) -> None:
        self.tape, self.rules, self.flows = tape, rules, flows
        self.detach = rules.attention == "detach"
        self.forced: set[Node] = set()

    def of(self, node: Node, name: str, c: list[Tensor | None]) -> Handed:
        """What a node hands to each operand for the ``c`` of each output, by its kind.

        Raises:
            NoRuleError: it has no rule.
        """
        if node in self.forced:
            return Handed(native(node, c))
        if name in self.tape.operations:
            return self._by_name(node, self.tape.operations[name], c)
        first = c[0]
        match name:
            case _ if name in PRODUCTS:
                factors = [i for i in range(len(edges(node))) if self.flows(node, i)]
                return formulas.product(node, c, [i for i in factors if not (name in ADDENDS and i == 0)])
            case "Div":
                return formulas.quotient(node, c, lambda i: self.flows(node, i))
            case "Lerp" if len(edges(node)) > 2 and self.flows(node, 2):  # else its weight is a number
                return formulas.gated(node, c, between_data=self.flows(node, 0) or self.flows(node, 1))
            case "GridSampler2D" | "GridSampler3D" if self.flows(node, 1):
                raise self.unsupported(node, name)  # linear in the image only
            case _ if name in WITH_MEANS:
                return Handed(native(node, [None, c[1]]))
            case "Softmax" | "LogSoftmax" | "SafeSoftmax":
                return formulas.softmax(node, c)
            case _ if name.startswith("ScaledDotProduct"):
                return formulas.attention(node, c, self.detach)
            case "CopySlices":
                return self._in_place(node, c)
            case _ if name in NATIVE or name == "DDPSink" or name == "_DDPSink":
                return Handed(native(node, c))
        if first is None:
            return Handed([None] * len(edges(node)))
        match name:
            case _ if name in ELEMENTWISE:
                return formulas.elementwise(node, first, ELEMENTWISE[name])
            case "Glu":
                return formulas.glu(node, first, self.detach)
            case "Sigmoid":
                return formulas.sigmoid(node, first)
            case "Tanh":
                return formulas.tanh(node, first)
            case "NativeLayerNorm":
                return formulas.layer_norm(node, first)
            case "FusedRmsNorm":
                return formulas.rms_norm(node, first)
            case "NativeGroupNorm":
                return formulas.group_norm(node, first)
            case _ if name in BATCH_NORMS:
                return formulas.instance_norm(node, first)
            case _ if isinstance(node, _COMPOSED):
                if node.how == "linear":
                    self.forced |= inside(node)
                return Handed(handed(node, first))
        if self.tape.probe and is_homogeneous(node, self.tape.operands.get(node), self.flows):
            return Handed(native(node, c))
        raise self.unsupported(node, name)

    def _by_name(self, node: Node, how: Any, c: list[Tensor | None]) -> Handed:
        """As a user named it: by the name of its node."""
        if how == "linear":
            return Handed(native(node, c))
        if callable(how):
            parts = how(node, *c)
            return Handed(list(parts) if isinstance(parts, tuple) else [parts])
        x = getattr(node, "_saved_self", None)
        y = getattr(node, "_saved_result", None)
        if x is None or y is None:
            raise UnsupportedError(
                f"{node.name()} does not keep both its input and its result, so it cannot be 'elementwise' by its "
                "name; give that of the module or of the function"
            )
        return Handed([None if c[0] is None else c[0] * y / stabilise(x, self.rules.eps)])

    def _in_place(self, node: Node, c: list[Tensor | None]) -> Handed:
        name = self.tape.in_place.get(node)
        others = [i for i in range(1, len(edges(node))) if self.flows(node, i)]
        linear = name in _LINEAR_IN_PLACE or (name in _SCALING_IN_PLACE and not others)
        if not linear:
            raise NoRuleError(node, name or "an operation", self.tape.path_of(node), in_place=True)
        return Handed(native(node, c))

    def unsupported(self, node: Node, name: str) -> NoRuleError:
        """What to raise for a node without a rule."""
        return NoRuleError(node, name, self.tape.path_of(node))

    def is_factor(self, node: Node, name: str, operand: int) -> bool:
        """Whether an operand without data multiplies; others are added."""
        if name in PRODUCTS:
            return not (name in ADDENDS and operand == 0)
        if name == "CopySlices":
            return operand > 0 and self.tape.in_place.get(node) in _SCALING_IN_PLACE
        if name == "Lerp":
            return operand == 2
        return name in ("Div", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm", "PreluKernel") and operand <= 1
