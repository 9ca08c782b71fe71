"""What a network takes, as its ``forward`` says."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from torch import nn


def inside(model: nn.Module) -> nn.Module:
    """The network inside of ``DataParallel`` and ``DistributedDataParallel``, whose own forward says nothing."""
    return getattr(model, "module", model) if type(model).__name__.endswith("DataParallel") else model


@dataclass(frozen=True)
class Signature:
    """What a network's ``forward`` takes.

    Attributes:
        names: of its parameters, in order. required: of those without a default.
        places: how many can be given by place; ``None`` for any number.
        names_any: whether it takes any name.
    """

    network: str
    names: tuple[str, ...]
    required: tuple[str, ...]
    places: int | None
    names_any: bool

    @staticmethod
    def of(model: nn.Module) -> Signature:
        """Read from the network; one that says nothing takes anything."""
        inner = inside(model)
        try:
            told = getattr(inner, "__signature__", None) or inspect.signature(inner.forward)
            found = told.parameters.values()
        except (TypeError, ValueError):
            return Signature(type(inner).__name__, (), (), None, True)
        placed = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        kinds = {p.kind for p in found}
        return Signature(
            type(inner).__name__,
            tuple(p.name for p in named),
            tuple(p.name for p in (*placed, *named[len(placed) :]) if p.default is p.empty),
            None if inspect.Parameter.VAR_POSITIONAL in kinds else len(placed),
            inspect.Parameter.VAR_KEYWORD in kinds,
        )

    def takes(self, count: int) -> bool:
        """Whether ``count`` arguments by place are enough, and not too many."""
        return len(self.required) <= count and (self.places is None or count <= self.places)

    def __str__(self) -> str:
        return f"forward of {self.network} takes ({', '.join(self.names)})"
