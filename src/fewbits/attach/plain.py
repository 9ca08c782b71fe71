"""A user's network as a plain one: no wrappers, and every weight a parameter of its own layer.

What stands in for weights (``torch.nn.utils.prune``, weight and spectral normalisation, parametrizations of the user's
own) is folded: the layer then has the weight that it computed with. Names are those of the network without wrappers.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from fewbits.errors import MismatchError, NonFiniteError, UnsupportedError
from fewbits.task.modes import keep_modes
from fewbits.weights import places


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def plain_copy(model: nn.Module, whose: str = "the network", *, shared: bool = False) -> nn.Module:
    """A copy of a user's network that every room can work with, in float32; the network is not changed.

    A network that is frozen as a whole is so no longer. Modules that stay in evaluation mode while it trains do so.

    Args:
        whose: what it is called in errors, such as ``"the teacher"``.
        shared: parameters of the copy share their memory with the network's, where they need no change. That is for
            a copy that is only read, and never handed to the user's code.

    Raises:
        UnsupportedError: no module, or one of TorchScript; a tensor without a shape or without numbers. NonFiniteError:
            a parameter or a statistic of a normalisation that is NaN or infinite, or a buffer that is NaN. The message
            names the tensor.
    """
    check_module(model, whose)
    model = unwrapped(model)
    for name, tensor in _tensors(model):
        if is_lazy(tensor):
            raise UnsupportedError(
                f"{name} has no shape yet: it is of a lazy layer; run a batch through the network first"
            )
        if tensor.is_meta:
            raise UnsupportedError(
                f"{name} holds no numbers: it is on the meta device; give the network its trained weights first"
            )
    # tensors with a history, as hooks leave them, cannot be copied by themselves
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    if shared:
        memo |= {
            id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters() if type(p) is nn.Parameter
        }
    try:
        copied = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedError(
            f"{type(model).__name__} cannot be copied: {error}; take what is no tensor or number (locks, files, "
            "tensors with a graph) off its modules, or give it a __deepcopy__"
        ) from error
    keep_modes(copied)
    plain = make_plain(copied)
    check_finite(plain)
    parameters = [p for p in plain.parameters() if p.is_floating_point()]
    if any(p.dtype != torch.float32 for p in parameters):
        plain = _in_float32(plain)
    if not any(p.requires_grad for p in parameters):
        for parameter in plain.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    return plain


def check_module(model: Any, whose: str = "the network") -> None:
    """Raise UnsupportedError for what is no network whose layers can be looked at."""
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"{whose} is TorchScript, whose layers cannot be changed: give the torch.nn.Module that it was made of"
        )
    if not isinstance(model, nn.Module):
        isa = f"the class {model.__name__}" if isinstance(model, type) else f"of type {type(model).__name__}"
        help = f"call it, {model.__name__}(...)" if isinstance(model, type) else "give a module with its weights in it"
        raise UnsupportedError(f"{whose} is {isa}, and no torch.nn.Module: {help}")


def _in_float32(plain: nn.Module) -> nn.Module:
    """The network in float32, in place; NonFiniteError, naming the tensor, where float64 reached further."""
    counted = {name: int(tensor.count_nonzero()) for name, tensor in _strict(plain)}
    plain = plain.float()
    for name, tensor in _strict(plain):
        beyond = int((~torch.isfinite(tensor)).sum())
        if beyond or (counted[name] and not tensor.any()):
            what = f"{beyond} of {tensor.numel()} numbers are" if beyond else "all numbers are"
            raise NonFiniteError(
                f"{name}: {what} too {'large' if beyond else 'small'} for float32, in which networks are compressed; "
                "scale them, and what computes with them, first"
            )
    return plain


def make_plain(model: nn.Module) -> nn.Module:
    """Fold, in place, what stands in for weights, and take wrappers off; returns the network inside of them."""
    model = unwrapped(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if unwrapped(child) is not child:
                setattr(module, name, unwrapped(child))
    for path, module in list(model.named_modules()):
        try:
            _fold(module)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise UnsupportedError(
                f"{path or type(model).__name__}: what stands in for its weight cannot be folded: {error}; take it off "
                "first, as by torch.nn.utils.parametrize.remove_parametrizations"
            ) from error
    return model


@torch.no_grad()
def _fold(module: nn.Module) -> None:
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nn.utils.remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            nn.utils.remove_spectral_norm(module, hook.name)
            loading = module._load_state_dict_pre_hooks
            for key, kept in list(loading.items()):  # PyTorch wraps them, and then does not find them again
                if isinstance(getattr(kept, "hook", kept), SpectralNormLoadStateDictPreHook):
                    del loading[key]
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
    if parametrize.is_parametrized(module):
        training = module.training
        module.eval()  # spectral normalisation moves its vectors while it trains
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            # A deep copy shares the class that torch made for the original, and removal edits that class.
            cls = type(module)
            module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        module.train(training)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def check_finite(model: nn.Module) -> None:
    """Raise NonFiniteError, naming the tensor, for numbers that no network computes with.

    Infinity is one in parameters and in the statistics of normalisations; masks among buffers are made of it.
    """
    strict = {name for name, _ in _strict(model)}
    for name, tensor in _tensors(model):
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor) if name in strict else torch.isnan(tensor)
        if count := int(bad.sum()):
            raise NonFiniteError(
                f"{name}: {count} of {tensor.numel()} numbers are NaN{' or infinite' if name in strict else ''}"
            )


def _strict(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Floating-point parameters, and statistics of normalisations: what must be finite."""
    statistics = {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        if isinstance(module, _NormBase)
        for name in ("running_mean", "running_var")
    }
    parameters = dict(model.named_parameters())
    found = [(name, tensor) for name, tensor in _tensors(model) if name in parameters or name in statistics]
    return [(name, tensor) for name, tensor in found if tensor.is_floating_point()]


def filled_in(like: nn.Module) -> nn.Module:
    """A skeleton to load into, in place: plain, and with memory for tensors that are on the meta device.

    Raises:
        MismatchError: a buffer that no file holds is on the meta device; its numbers are nowhere. UnsupportedError: no
            module.
    """
    if not isinstance(like, nn.Module):
        check_module(like, "like=")
    plain = make_plain(like)
    held = set(plain.state_dict())
    empty = [name for name, tensor in _tensors(plain) if tensor.is_meta]
    for name in empty:
        if name not in held:
            raise MismatchError(
                f"{name} is on the meta device and in no file, as it is not persistent: build the skeleton without "
                'torch.device("meta")'
            )
    if empty:
        shared = [own for own in places(plain).values() if len(own) > 1]
        # not Module.to_empty, which would also empty what is there
        plain._apply(lambda t: torch.zeros_like(t, device="cpu") if t.is_meta else t)
        for first, *others in shared:  # each place has got a tensor of its own
            for place in others:
                for tensors in (place.module._parameters, place.module._buffers):
                    if place.attribute in tensors:
                        tensors[place.attribute] = first.stored
    return plain
