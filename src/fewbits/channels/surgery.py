"""Channels really removed: the tensors get smaller in place, and the layers that hold them say so.

The network keeps its class, its forward and its names. Nothing is traced: a plan says what stays of each dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fewbits.channel_masks import KEPT, ChannelMasks, channels_of
from fewbits.channels.heads import fewer, heads_of
from fewbits.channels.responses import factor, is_response, with_fewer
from fewbits.errors import MismatchError, did_you_mean
from fewbits.graph.traced import kind_of_module
from fewbits.weights import is_turned

PADDING = (nn.ZeroPad3d, nn.ConstantPad3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def prune_channels(model: nn.Module, channels: ChannelMasks) -> None:
    """Remove channels from a plain network, in place.

    Parameters and buffers become smaller ones under the same names, and layers are told their new sizes. A network may
    be narrowed again; :func:`channels_of` then says what is left of the first one. Nothing is changed on an error.

    Args:
        model: the network that ``channels`` is about, trained or not.

    Raises:
        MismatchError: a tensor or padding layer that the network lacks, sizes that differ, or groups of a convolution
            that the removal would tear apart.
    """
    state = model.state_dict(keep_vars=True)
    smaller: dict[int, Tensor] = {}
    seen: dict[int, tuple[Tensor | None, ...]] = {}
    for name, masks in channels.kept.items():
        if name not in state:
            raise MismatchError(
                f"channels are to be removed from {name!r}, which the network lacks{did_you_mean(name, state)}"
            )
        tensor = state[name]
        wanted = channels.full(name, tuple(int(m.sum()) if m is not None else -1 for m in masks))
        if len(masks) != tensor.dim() or any(w not in (-1, s) for w, s in zip(wanted, tensor.shape, strict=True)):
            told = [s if w == -1 else w for w, s in zip(wanted, tensor.shape, strict=False)]
            raise MismatchError(f"{name}: channels are kept of shape {told}, the network has {list(tensor.shape)}")
        found = tensor.detach()
        for dim, mask in enumerate(masks):
            if mask is not None:
                found = found.index_select(dim, mask.nonzero().flatten().to(found.device))
        found = found.contiguous()
        if not _same(seen.setdefault(id(tensor), masks), masks):
            raise MismatchError(
                f"{name}: the network uses this tensor under two names, of which different channels are kept"
            )
        smaller[id(tensor)] = nn.Parameter(found, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else found
    groups = _groups(model, smaller)
    pads = _pads(model, channels)
    numbers = _numbers(model, channels)
    _made_up(model, channels, smaller)
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for attribute, tensor in held.items():
                if tensor is not None and id(tensor) in smaller:
                    held[attribute] = smaller[id(tensor)]  # type: ignore[assignment]
        _tell(module, groups)
    for pad, counts in pads:
        pad.padding = (*pad.padding[:4], *counts)  # type: ignore[assignment, index]
    for module, attributes in numbers:
        module.__dict__ |= attributes
    before = channels_of(model)
    model.__dict__[KEPT] = channels if before is None else before.then(channels)


def _same(a: tuple[Tensor | None, ...], b: tuple[Tensor | None, ...]) -> bool:
    """Whether masks keep the same channels. Numbers would not tell: an untrained skeleton may hold NaN."""
    return all(x is y or (x is not None and y is not None and torch.equal(x, y)) for x, y in zip(a, b, strict=True))


def _groups(model: nn.Module, smaller: dict[int, Tensor]) -> dict[nn.Module, int]:
    """Groups of every grouped convolution afterwards: fewer for a depthwise one, else as many as before."""
    found: dict[nn.Module, int] = {}
    for path, module in model.named_modules():
        if not isinstance(module, CONVOLUTIONS + TRANSPOSED) or module.groups == 1:
            continue
        weight = smaller.get(id(module.weight), module.weight)
        each = (module.out_channels if isinstance(module, CONVOLUTIONS) else module.in_channels) // module.groups
        depthwise = module.weight.shape[1] == 1
        groups, rest = divmod(weight.shape[0], each) if depthwise else (module.groups, weight.shape[0] % module.groups)
        if rest:
            raise MismatchError(
                f"{path}: {weight.shape[0]} channels cannot be left of {module.groups} groups of {each}"
            )
        found[module] = groups
    return found


def _pads(model: nn.Module, channels: ChannelMasks) -> list[tuple[nn.Module, tuple[int, int]]]:
    modules = {path: m for path, m in model.named_modules() if isinstance(m, PADDING)}
    found: list[tuple[nn.Module, tuple[int, int]]] = []
    for path, counts in channels.paddings.items():
        if path not in modules:
            raise MismatchError(f"the network has no layer {path!r} that pads channels{did_you_mean(path, modules)}")
        present = modules[path].padding[4:]
        if any(not 0 <= count <= there for count, there in zip(counts, present, strict=True)):
            raise MismatchError(f"{path}: {counts} channels of padding cannot be left of {tuple(present)}")
        found.append((modules[path], counts))
    return found


def _numbers(model: nn.Module, channels: ChannelMasks) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Attributes that a forward pass computes with: how many heads there are, outputs of a layer of one's own, eps."""
    found: list[tuple[nn.Module, dict[str, Any]]] = []
    for path, module in model.named_modules():
        heads = heads_of(module)
        if heads is not None:
            names = {layer for own in heads.layers.values() for layer, _ in own}
            rows = {
                layer: _outputs(module.get_submodule(layer), f"{path}.{layer}".lstrip("."), channels) for layer in names
            }
            found.append((module, fewer(heads, {layer: mask for layer, mask in rows.items() if mask is not None})))
        kept = _outputs(module, path, channels)
        if kept is None:
            continue
        if is_response(module):
            found.append((module, with_fewer(module, kept)))
        elif told(module) is not None:
            found.append((module, {_ATTRIBUTES[is_turned(module)]: int(kept.sum())}))
    return found


_ATTRIBUTES = ("out_channels", "nf")  # of a convolution, of transformers' Conv1D


def told(module: nn.Module) -> int | None:
    """How many outputs a layer with a forward pass of its own has, by an attribute; ``None`` of any other."""
    if not is_turned(module) and (not isinstance(module, CONVOLUTIONS) or kind_of_module(module) is not None):
        return None
    number = vars(module).get(_ATTRIBUTES[is_turned(module)])
    return number if type(number) is int else None


def _outputs(module: nn.Module, path: str, channels: ChannelMasks) -> Tensor | None:
    """Which output channels of a layer's weight stay, if the masks are of the weight that it has."""
    axis = int(is_turned(module))
    masks = channels.kept.get(f"{path}.weight".lstrip("."), ())
    mask = masks[axis] if len(masks) > axis else None
    weight = module._parameters.get("weight")
    return mask if mask is not None and weight is not None and len(mask) == weight.shape[axis] else None


def _made_up(model: nn.Module, channels: ChannelMasks, smaller: dict[int, Tensor]) -> None:
    """Let the weights of global response normalisation make up for a mean over fewer channels."""
    done: set[int] = set()
    for path, module in model.named_modules():
        kept = _outputs(module, path, channels) if is_response(module) else None
        if kept is not None and id(module.weight) not in done:
            done.add(id(module.weight))
            smaller[id(module.weight)].mul_(factor(kept))


def _tell(module: nn.Module, groups: dict[nn.Module, int]) -> None:
    """Give a layer the sizes that its tensors have. They are labels for people and exporters; the tensors compute."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, CONVOLUTIONS):
        module.groups = groups.get(module, module.groups)
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, TRANSPOSED):
        module.groups = groups.get(module, module.groups)
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, _BatchNorm | _InstanceNorm):
        sized = weight if isinstance(weight, Tensor) else module.running_mean
        if sized is not None:
            module.num_features = len(sized)
    elif isinstance(module, nn.RNNBase):
        inputs, hidden = (getattr(module, name).shape[1] for name in ("weight_ih_l0", "weight_hh_l0"))
        module.input_size, module.hidden_size = inputs, hidden
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
        module.flatten_parameters()
    elif is_turned(module):
        vars(module)["nx"], vars(module)["nf"] = weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()


@contextmanager
def with_numbers(model: nn.Module, channels: ChannelMasks | None) -> Iterator[None]:
    """Let attributes be meanwhile what they are without these channels: a trace has them as numbers."""
    found = [] if channels is None else _numbers(model, channels)
    before = [dict(vars(module)) for module, _ in found]
    for module, attributes in found:
        module.__dict__ |= attributes
    try:
        yield
    finally:
        for (module, attributes), values in zip(reversed(found), reversed(before), strict=True):
            for name in attributes:
                if name in values:
                    vars(module)[name] = values[name]
                else:
                    del vars(module)[name]


@torch.no_grad()
def zero_channels(model: nn.Module, channels: ChannelMasks) -> None:
    """The same removal without surgery, in place: everything that :func:`prune_channels` would take away becomes zero.

    The network keeps its shapes and computes what the narrowed one does, up to rounding. For tests and comparisons.
    """
    state = model.state_dict(keep_vars=True)
    for name, masks in channels.kept.items():
        for dim, mask in enumerate(masks):
            if mask is not None:
                gone = (~mask).nonzero().flatten().to(state[name].device)
                state[name].index_fill_(dim, gone, 0)
