"""What goes through a network's graph, and carries something along beside each value."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from fewbits.channels import _functional as functional
from fewbits.channels import _rules as rules
from fewbits.channels._carried import Held, argument, parts_of
from fewbits.channels._ledger import Ledger


class Carrier(fx.Interpreter):
    """Runs a graph.

    Attributes:
        ledger: of the network's channels. known: its labels. carried: beside the value of each node.
        guesses: whether attributes may be taken for counts by their names. guessed: whether one was.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, guesses: bool = True) -> None:
        super().__init__(model, graph=graph, garbage_collect_values=False)
        self.extra_traceback = False
        self.model = model
        self.ledger = Ledger(model)
        self.known = self.ledger.known
        self.carried: dict[fx.Node, Any] = {}
        self.guesses, self.guessed = guesses, False

    def _of(self, argument: Any) -> Any:
        return self.carried.get(argument) if isinstance(argument, fx.Node) else argument

    def _is_tensor(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and isinstance(self._of(argument), Tensor | Held)

    def _labels(self, argument: Any) -> Tensor:
        found = self._of(argument)
        if isinstance(found, Held):
            if found.along is not None:
                return functional.labels_of(self.ledger, found)
            self.ledger.fix(found.tensor, "it is used outside of a layer")
            found = found.tensor
        elif isinstance(argument, fx.Node) and isinstance(found, Tensor):
            return found
        return rules.of_constant(found)

    def _parts(self, node: fx.Node) -> list[Tensor]:
        """Labels of what is joined: written as a list, or a tuple that an operation gave."""
        parts = self._of(argument(node, 0, "tensors", ()))
        return [part if isinstance(part, Tensor) else self._labels(part) for part in parts]

    def _values(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda node: self.env[node])

    def _same(self, node: fx.Node, labels: Tensor) -> Any:
        """What the operation does, done to the labels."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if node.op == "call_method":
            return getattr(labels, str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        if not args:
            return node.target(**{**kwargs, next(iter(kwargs)): labels})
        return node.target(labels, *args[1:], **kwargs)

    def _fix(self, arguments: Any, why: str) -> None:
        def fix(node: fx.Node) -> fx.Node:
            for labels in parts_of(self.carried.get(node), Tensor):
                self.known.fix(labels, why)
            for held in parts_of(self.carried.get(node), Held):
                self.ledger.fix(held.tensor, why)
            return node

        fx.node.map_arg(arguments, fix)
