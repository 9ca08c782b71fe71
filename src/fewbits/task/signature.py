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
        places: how many can be given by place; ``None`` for any number. inputs: how many of these are inputs: what has
            a word or a truth value by default is an option, and so is what comes behind it.
        names_any: whether it takes any name.
    """

    network: str
    names: tuple[str, ...]
    required: tuple[str, ...]
    places: int | None
    names_any: bool
    inputs: int | None = None

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
            next((i for i, p in enumerate(placed) if isinstance(p.default, bool | str)), None),
        )

    def takes(self, count: int, *, told: bool = True) -> bool:
        """Whether ``count`` arguments by place are enough, and not too many.

        Args:
            told: whether somebody said that they are inputs; else none of them may stand in the place of an option.
        """
        most = [limit for limit in (self.places, None if told else self.inputs) if limit is not None]
        return len(self.required) <= count <= min(most, default=count)

    def __str__(self) -> str:
        return f"forward of {self.network} takes ({', '.join(self.names)})"
