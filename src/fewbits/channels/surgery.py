"""Channels really removed: the tensors get smaller in place, and the layers that hold them say so.

The network keeps its class, its forward and its names. Nothing is traced: a plan says what stays of each dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fewbits.channel_masks import KEPT, ChannelMasks, channels_of
from fewbits.channels.heads import fewer, heads_of
from fewbits.errors import MismatchError, did_you_mean

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
    heads = _heads(model, channels)
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for attribute, tensor in held.items():
                if tensor is not None and id(tensor) in smaller:
                    held[attribute] = smaller[id(tensor)]  # type: ignore[assignment]
        _tell(module, groups)
    for pad, counts in pads:
        pad.padding = (*pad.padding[:4], *counts)  # type: ignore[assignment, index]
    for module, attributes in heads:
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


def _heads(model: nn.Module, channels: ChannelMasks) -> list[tuple[nn.Module, dict[str, int]]]:
    """Attributes of attention that say how many heads there are."""
    found = []
    for path, module in model.named_modules():
        heads = heads_of(module)
        if heads is not None:
            names = {layer: f"{path}.{layer}.weight".lstrip(".") for own in heads.layers.values() for layer, _ in own}
            rows = {layer: channels.kept[name][0] for layer, name in names.items() if name in channels.kept}
            found.append((module, fewer(heads, {layer: mask for layer, mask in rows.items() if mask is not None})))
    return found


def _tell(module: nn.Module, groups: dict[nn.Module, int]) -> None:
    """Give a layer the sizes that its tensors have. They are labels for people and exporters; the tensors compute."""
    weight = getattr(module, "weight", None)
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
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()


@contextmanager
def fewer_heads(model: nn.Module, channels: ChannelMasks | None) -> Iterator[None]:
    """Let attributes of attention be meanwhile what they are without these channels: a trace has them as numbers."""
    found = [] if channels is None else _heads(model, channels)
    before = [{name: vars(module)[name] for name in attributes} for module, attributes in found]
    for module, attributes in found:
        module.__dict__ |= attributes
    try:
        yield
    finally:
        for (module, _), attributes in zip(found, before, strict=True):
            module.__dict__ |= attributes


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
