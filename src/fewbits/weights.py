"""Which tensors of a network are compressed: the only place that walks a model's parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.errors import NonFiniteError, SelectionError, did_you_mean

PLAIN = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Embedding, nn.EmbeddingBag, nn.Bilinear,
)  # fmt: skip
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
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
    def stored(self) -> Any:
        """The parameter or buffer itself; of one that several others make up, what holds these."""
        held = self.module._parameters.get(self.attribute, self.module._buffers.get(self.attribute))
        if held is None and parametrize.is_parametrized(self.module, self.attribute):
            chain: Any = self.module.parametrizations[self.attribute]  # type: ignore[index]
            return chain.original if chain.is_tensor else chain
        return held

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
        buffers = [name for name in module._buffers if name not in module._non_persistent_buffers_set]
        computed = list(module.parametrizations) if parametrize.is_parametrized(module) else []
        for attribute in (*module._parameters, *buffers, *computed):
            place = Place(f"{path}.{attribute}".lstrip("."), module, attribute)
            if place.stored is not None:
                found.setdefault(id(place.stored), []).append(place)
    return {own[0].name: own for own in found.values()}


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


def turned(model: nn.Module) -> dict[str, nn.Module]:
    """``{path: module}`` of every layer with a weight of ``[inputs, outputs]``, see :func:`is_turned`."""
    return {path: m for path, m in model.named_modules() if is_turned(m)}


def layer_weights(model: nn.Module) -> dict[str, Tensor]:
    """Those of :func:`select` that a linear or convolutional layer or a ``Conv1D`` computes with: it has channels."""
    first, paths = aliases(model), [f"{path}.weight".lstrip(".") for path in (*layers(model), *turned(model))]
    names = {first.get(name, name) for name in paths}
    return {name: tensor for name, tensor in select(model).items() if name in names} if names else {}


def channel_axes(model: nn.Module) -> dict[str, int]:
    """``{weight name: the dimension of its output channels}`` of :func:`layer_weights` and recurrent layers.

    A recurrent layer has its hidden units once for each gate along dimension 0.
    """
    known, computing = _candidates(model)[0], layer_weights(model)
    recurrent = [name for name, own in known.items() if any(isinstance(p.module, nn.RNNBase) for p in own)]
    return {name: int(is_turned(known[name][0].module)) for name in dict.fromkeys([*computing, *recurrent])}


def select(model: nn.Module, include: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> dict[str, Tensor]:
    """The weights to compress, as ``{"path.weight": tensor}`` (the tensors themselves, not copies).

    As in ECQx (arXiv 2109.04236, section 5) these are the weights of all convolutional and fully connected layers, the
    first and the last included, and likewise those of transposed convolutions, embeddings, recurrent layers, attention
    and transformers' ``Conv1D``; biases and normalisation stay floating point. A pattern that matches none of these
    takes any other parameters of two or more dimensions, such as positions or class tokens.

    A tensor that several modules share is one weight under the first of its names; patterns may mean any of them.

    Args:
        model: a plain network (call it before :func:`fewbits.attach.attach`).
        include, exclude: shell patterns on the tensor names, for example ``"features.*"``.

    Raises:
        SelectionError: a pattern matches nothing, or only what stays as it is, or nothing is left.
        NonFiniteError: a selected weight holds NaN or infinity.
    """
    found, others = _candidates(model)
    if not found and not others:
        raise SelectionError(
            f"{type(model).__name__} has no linear or convolutional layer to compress, nor any other parameter of two "
            "or more dimensions"
        )
    include, exclude = tuple(include), tuple(exclude)
    meant = {pattern: _meant(pattern, found, others, model) for pattern in (*include, *exclude)}
    out = {name for pattern in exclude for name in meant[pattern]}
    wanted = {name for pattern in include for name in meant[pattern]} - out
    own_order = {name: number for number, name in enumerate(places(model))}
    order = sorted(wanted, key=lambda name: own_order.get(name, len(own_order)))  # computed ones come last
    chosen = {name: (found | others)[name][0].tensor for name in order}
    if not chosen:
        raise SelectionError("the exclude patterns remove every weight that include selects")
    for name, tensor in chosen.items():
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(f"{name}: {bad} of {tensor.numel()} weights are NaN or infinite")
    return chosen


def same_weights(model: nn.Module, form: nn.Module, chosen: Iterable[str]) -> dict[str, Tensor]:
    """The chosen weights of a network in another form of it, which has its names, and not all of its classes."""
    own, known = places(form), places(model)
    names = {next((p.name for p in known[name] if p.name in own), "") for name in chosen if name in known}
    return {name: found[0].tensor for name, found in own.items() if name in names}


def uncompressed(model: nn.Module, chosen: Iterable[str]) -> dict[str, str]:
    """``{name: why}`` of the tensors of a plain network that are not among the chosen ones."""
    taken = set(chosen)
    return {name: _reason(own[0]) for name, own in places(model).items() if name not in taken}


def _candidates(model: nn.Module) -> tuple[dict[str, list[Place]], dict[str, list[Place]]]:
    """Weights of layers, and all other parameters of two or more dimensions."""
    found, others = {}, {}
    for name, own in places(model).items():
        if any(place.attribute in _weights_of(place.module) for place in own):
            found[name] = own
        elif isinstance(own[0].stored, nn.Parameter) and own[0].stored.dim() > 1:
            others[name] = own
    known = {place.name for own in found.values() for place in own}
    for path, module in model.named_modules():
        for attribute in _weights_of(module):
            name = f"{path}.{attribute}".lstrip(".")
            if name not in known and isinstance(getattr(module, attribute, None), Tensor):
                found[name] = [Place(name, module, attribute)]  # computed from other tensors, as by weight_norm
    return found, others


def _weights_of(module: nn.Module) -> tuple[str, ...]:
    """The attributes of a layer that are its weights."""
    if isinstance(module, PLAIN) or is_turned(module):
        return ("weight",)
    named = getattr(module, "compressible", None)
    if isinstance(named, tuple):
        return named
    if isinstance(module, RECURRENT):
        named = (*module._parameters, *getattr(module, "parametrizations", ()))
        return tuple(name for name in named if name.startswith("weight_"))
    return PROJECTIONS if isinstance(module, nn.MultiheadAttention) else ()


def is_turned(module: nn.Module) -> bool:
    """Whether a layer's weight is ``[inputs, outputs]``, as that of transformers' ``Conv1D``.

    Others call convolutions, or what wraps one, by that name.
    """
    if isinstance(module, PLAIN) or all(cls.__name__ != "Conv1D" for cls in type(module).__mro__):
        return False
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2


def _meant(pattern: str, found: dict[str, list[Place]], others: dict[str, list[Place]], model: nn.Module) -> list[str]:
    """The weights that a pattern matches; else the other parameters that it does."""
    for pool in (found, others):
        names = [name for name, own in pool.items() if any(fnmatchcase(place.name, pattern) for place in own)]
        if names:
            return names
    for own in places(model).values():
        match = next((place for place in own if fnmatchcase(place.name, pattern)), None)
        if match is not None:
            raise SelectionError(f"pattern {pattern!r} matches no weight: {match.name} {_reason(match)}")
    raise SelectionError(f"pattern {pattern!r} matches no weight{did_you_mean(pattern, found | others)}")


def _reason(place: Place) -> str:
    tensor = place.stored
    if not isinstance(tensor, nn.Parameter):
        return "is a buffer, which stays as it is"
    if tensor.dim() < 2:
        return "has fewer than two dimensions, as biases and normalisation have, and stays floating point"
    if any(place.attribute == name for name in _weights_of(place.module)):
        return "was not selected"
    return "is no layer's weight; select it by its name"


def parameters_of(model: nn.Module) -> int:
    """Number of trainable numbers of a network, shared ones once: what papers call its parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
