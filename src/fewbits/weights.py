"""Which tensors of a network are compressed: the only place that walks a model's parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.errors import NonFiniteError, SelectionError, did_you_mean

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Place:
    """One of the places of a tensor in a network.

    Attributes:
        name: of the tensor there. module, attribute: what holds it.
    """

    name: str
    module: nn.Module
    attribute: str

    @property
    def tensor(self) -> Tensor:
        """What the module computes with there, which a parametrization makes anew each time."""
        found: Tensor = getattr(self.module, self.attribute)
        return found


def places(model: nn.Module) -> dict[str, list[Place]]:
    """Every parameter and buffer of a network by the first of its names, with all places where it is.

    A tensor that several modules share is one, and so is that of a module under two paths. The names are those of
    the plain network, whether or not a plan is attached; the order is that of its state dict.
    """
    found: dict[int, list[Place]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if "parametrizations" in path.split("."):
            continue
        held = dict(module._parameters) | {n: b for n, b in module._buffers.items() if _is_kept(module, n)}
        if parametrize.is_parametrized(module):
            chains = module.parametrizations.items()
            held |= {n: chain.original for n, chain in chains if chain.is_tensor}
        for attribute, tensor in held.items():
            if tensor is not None:
                place = Place(f"{path}.{attribute}".lstrip("."), module, attribute)
                found.setdefault(id(tensor), []).append(place)
    return {own[0].name: own for own in found.values()}


def _is_kept(module: nn.Module, buffer: str) -> bool:
    return buffer not in module._non_persistent_buffers_set


def aliases(model: nn.Module) -> dict[str, str]:
    """``{another name: the first name}`` of every tensor that a network has under several names."""
    return {place.name: name for name, own in places(model).items() for place in own[1:]}


def shared(model: nn.Module) -> set[tuple[nn.Module, str]]:
    """``(module, attribute)`` of every tensor that another module has, too."""
    several = [own for own in places(model).values() if any(place.module is not own[0].module for place in own)]
    return {(place.module, place.attribute) for own in several for place in own}


def layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    """``{path: module}`` of every linear and convolutional layer, in definition order.

    A module that is used under two paths appears once, under the first.
    """
    return {path: m for path, m in model.named_modules() if isinstance(m, WEIGHTED)}


def select(model: nn.Module, include: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> dict[str, Tensor]:
    """The weights to compress, as ``{"path.weight": tensor}`` (the tensors themselves, not copies).

    As in ECQx (arXiv 2109.04236, section 5) these are the weights of all convolutional and fully connected
    layers, the first and the last included; biases and normalisation stay floating point. A tensor that several
    modules share is one weight under the first of its names; patterns may mean any of them.

    Args:
        model: a plain network (call it before :func:`fewbits.attach.attach`).
        include, exclude: shell patterns on the tensor names, for example ``"features.*"``.

    Raises:
        SelectionError: a pattern matches nothing, or nothing is left.
        NonFiniteError: a selected weight holds NaN or infinity.
    """
    found = {
        name: own
        for name, own in places(model).items()
        if any(isinstance(place.module, WEIGHTED) and place.attribute == "weight" for place in own)
    }
    if not found:
        raise SelectionError(f"{type(model).__name__} has no linear or convolutional layer to compress")
    include, exclude = tuple(include), tuple(exclude)
    for pattern in (*include, *exclude):
        if not any(_matches(own, pattern) for own in found.values()):
            raise SelectionError(f"pattern {pattern!r} matches no weight{did_you_mean(pattern, found)}")
    chosen = {
        name: own[0].tensor
        for name, own in found.items()
        if any(_matches(own, p) for p in include) and not any(_matches(own, p) for p in exclude)
    }
    if not chosen:
        raise SelectionError("the exclude patterns remove every weight that include selects")
    for name, tensor in chosen.items():
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(f"{name}: {bad} of {tensor.numel()} weights are NaN or infinite")
    return chosen


def _matches(own: list[Place], pattern: str) -> bool:
    return any(fnmatchcase(place.name, pattern) for place in own)


def parameters_of(model: nn.Module) -> int:
    """Number of trainable numbers of a network, shared ones once: what papers call its parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
