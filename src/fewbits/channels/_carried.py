"""What is carried along a graph beside each value: labels, sizes, tensors of the network's own, and tuples of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.channels._labels import FIXED, varying
from fewbits.graph import PLACE


@dataclass(frozen=True, eq=False)
class Held:
    """A parameter or buffer that the forward pass itself reads; on which axis its channels are, an operand says.

    Attributes:
        shape: as it is laid out. along: of one that was laid out anew, the axis of that shape that has its channels,
            and the dimension of the tensor that these are.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    along: tuple[int, int] | None = None


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.kwargs.get(name, node.args[position] if len(node.args) > position else default)


def parts_of(carried: Any, kind: type) -> list[Any]:
    if isinstance(carried, tuple | list):
        return [found for part in carried for found in parts_of(part, kind)]
    return [carried] if isinstance(carried, kind) else []


def each(result: Any, make: Callable[[Tensor], Any]) -> Any:
    return tuple(make(part) for part in result) if isinstance(result, tuple | list) else make(result)


def fits(found: Any, result: Any) -> bool:
    """Whether labels have the shape of what they are of."""
    if isinstance(found, Held):
        return isinstance(result, Tensor) and found.shape == result.shape
    if isinstance(result, Tensor):
        return isinstance(found, Tensor) and found.shape == result.shape and len(varying(found)) <= 1
    if isinstance(result, tuple | list) and not isinstance(result, torch.Size):
        return isinstance(found, tuple | list) and len(found) == len(result) and all(map(fits, found, result))
    return not isinstance(found, Tensor)


def plain(result: Any) -> Any:
    """Labels for a result whose channels all stay."""
    if isinstance(result, tuple | list) and not isinstance(result, torch.Size):
        return tuple(plain(part) for part in result)
    return torch.full(tuple(result.shape), FIXED, dtype=torch.int64) if isinstance(result, Tensor) else None


def name_of(node: fx.Node, model: nn.Module) -> str:
    """An operation as its user knows it."""
    name = str(node.target) if node.op == "call_module" else node.name
    place = node.meta.get(PLACE, "")
    return f"{name}{f' in {place}' if place and place != name else ''} ({_what(node, model)})"


def _what(node: fx.Node, model: nn.Module) -> str:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))).__name__
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
