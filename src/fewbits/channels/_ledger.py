"""Which labels belong to which tensors of a network, and what they come to in the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewbits.channels._labels import FIXED, Labels
from fewbits.channels.dependencies import Dependencies
from fewbits.errors import UnsupportedError


class Ledger:
    """Labels along each dimension of each parameter and buffer; tensors that layers share have one entry."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.known = Labels()
        state = {name: t for name, t in model.state_dict(keep_vars=True).items() if t.dim()}
        self.names: dict[int, list[str]] = {}
        for name, tensor in state.items():
            self.names.setdefault(id(tensor), []).append(name)
        self.axes: dict[int, list[Tensor | None]] = {id(t): [None] * t.dim() for t in state.values()}
        self.outputs: dict[int, str] = {}
        self.turned: set[int] = set()  # of the outputs, those with output channels along dimension 1
        self.paddings: dict[str, tuple[Tensor, Tensor]] = {}
        self.products: list[tuple[Tensor, int]] = []

    def axis(self, tensor: Tensor, dim: int) -> Tensor:
        """Labels along a dimension of a tensor; new ones the first time."""
        vectors = self.axes[id(tensor)]
        found = vectors[dim]
        if found is None:
            found = vectors[dim] = self.known.fresh(tensor.shape[dim])
        return found

    def join(self, tensor: Tensor, dim: int, labels: Tensor, why: str) -> None:
        """Make a tensor's labels one with others."""
        self.known.join(self.axis(tensor, dim), labels, why)

    def fix(self, tensor: Tensor, why: str) -> None:
        """Let a tensor stay as it is."""
        for dim in range(tensor.dim() if id(tensor) in self.axes else 0):  # what no state dict holds is never cut
            self.known.fix(self.axis(tensor, dim), why)

    def found(self) -> Dependencies:
        """Units of what can be removed; UnsupportedError where nothing can."""
        known = self.known
        roots = known.roots(torch.arange(len(known)))
        # A unit must have output channels, and a layer must not be all one unit.
        removable = torch.zeros(len(known), dtype=torch.bool)
        for tensor in self.outputs:
            removable[roots[self._vector(tensor)]] = True
        removable[FIXED] = False
        for tensor in self.outputs:
            units = torch.unique(roots[self._vector(tensor)])
            if len(units) == 1:
                removable[units] = False
        numbers = torch.full((len(known),), -1)
        numbers[removable] = torch.arange(int(removable.sum()))
        unit_of = numbers[roots]
        if not bool(removable.any()):
            told = "; ".join(f"{name}: {self._why(tensor)}" for tensor, name in list(self.outputs.items())[:3])
            told = told or "it has no layer that is known to have channels"
            raise UnsupportedError(
                f"no channel of {type(self.model).__name__} can be removed ({told}); leave channels out: clusters, "
                "pruning and int8 take its layers as they are"
            )
        axes: dict[str, tuple[Tensor | None, ...]] = {}
        for tensor, vectors in self.axes.items():
            units = tuple(None if v is None else unit_of[v] for v in vectors)
            if any(u is not None and bool((u >= 0).any()) for u in units):
                for name in self.names[tensor]:
                    axes[name] = units
        fixed = {
            name: self._why(tensor)
            for tensor, name in self.outputs.items()
            if bool((unit_of[self._vector(tensor)] < 0).any())
        }
        paddings = {path: (unit_of[a], unit_of[b]) for path, (a, b) in self.paddings.items()}
        names = tuple(self.names[tensor][0] for tensor in self.outputs)
        products = tuple((unit_of[vector], each) for vector, each in self.products)
        turned = frozenset(self.names[tensor][0] for tensor in self.turned)
        return Dependencies(axes, paddings, names, int(removable.sum()), fixed, products, turned)

    def _vector(self, tensor: int) -> Tensor:
        found = self.axes[tensor][int(tensor in self.turned)]
        assert found is not None
        return found

    def _why(self, tensor: int) -> str:
        vector = self._vector(tensor)
        stuck = vector[self.known.roots(vector) == FIXED]
        return self.known.why(int(stuck[0])) if len(stuck) else "its channels can only be removed all at once"
