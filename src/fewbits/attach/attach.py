"""Put a plan on a network for training, and take it off again.

Only this room touches the inside of modules. ``torch.nn.utils.parametrize`` holds the plan: the network keeps
its classes and its forward, can be copied, exported and compiled, and folds back to plain modules and names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from fewbits.attach._affine import AffineWeight
from fewbits.attach._hold import ClusteredWeight
from fewbits.attach._mask import MaskedWeight
from fewbits.attach.precision import shortened
from fewbits.channel_masks import channels_of
from fewbits.errors import MismatchError, SelectionError, UnsupportedError, did_you_mean
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked, Plan


def counters(model: nn.Module) -> set[str]:
    """Names of the buffers that count the training batches of a normalisation; no part of what the network computes."""
    norms = (path for path, module in model.named_modules() if isinstance(module, _NormBase))
    return {f"{path}.num_batches_tracked".lstrip(".") for path in norms}


Held = ClusteredWeight | MaskedWeight | AffineWeight
"""What holds a weight."""


def attach(model: nn.Module, plan: Mapping[str, object], *, learn: bool = False) -> None:
    """Hold the compressed entries of ``plan`` on ``model``, in place.

    The float weights stay as background weights (``module.parametrizations.weight.original``) and receive the
    gradients; the forward pass computes with the clustered and pruned tensors.

    Args:
        model: a plain network.
        plan: entries by tensor name; all but :class:`Dense` ones are attached.
        learn: whether step sizes and codebooks are trained parameters.

    Raises:
        MismatchError: a name that the model lacks, or a shape that differs. SelectionError: a weight that
            carries a plan already. UnsupportedError: a weight that is not float32. Nothing is attached then.
    """
    entries = {name: entry for name, entry in plan.items() if isinstance(entry, Clustered | Masked | Affine)}
    for name, entry in entries.items():
        module, attribute = _owner(model, name)
        weight = getattr(module, attribute)
        if tuple(weight.shape) != entry.shape:
            raise MismatchError(f"{name}: the plan has shape {entry.shape}, the network {tuple(weight.shape)}")
        if weight.dtype != torch.float32:
            raise UnsupportedError(f"{name} has the type {weight.dtype}; only float32 is compressed: model.float()")
        if parametrize.is_parametrized(module, attribute):
            raise SelectionError(f"{name} already carries a plan; fold it first")
    for name, entry in entries.items():
        module, attribute = _owner(model, name)
        holder = _holder(entry, learn)
        parametrize.register_parametrization(module, attribute, holder.to(getattr(module, attribute).device))


def _holder(entry: Clustered | Masked | Affine, learn: bool) -> Held:
    if isinstance(entry, Masked):
        return MaskedWeight(entry)
    return AffineWeight(entry) if isinstance(entry, Affine) else ClusteredWeight(entry, learn=learn)


def held(model: nn.Module) -> dict[str, Held]:
    """``{tensor name: what holds it}`` of every attached weight, in the model's order."""
    found: dict[str, Held] = {}
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():
            if isinstance(chain[0], Held):
                found[f"{path}.{attribute}".lstrip(".")] = chain[0]
    return found


def background(model: nn.Module) -> dict[str, nn.Parameter]:
    """``{tensor name: float background weight}`` of every attached weight."""
    found: dict[str, nn.Parameter] = {}
    for name in held(model):
        path, _, attribute = name.rpartition(".")
        chains = model.get_submodule(path).parametrizations  # asking for the weight itself would compute it
        found[name] = chains[attribute].original  # type: ignore[index, union-attr]
    return found


def fold(model: nn.Module) -> None:
    """Replace every attached weight by its clustered or pruned tensor: a plain network again, in place."""
    for name in held(model):
        module, attribute = _owner(model, name)
        # A deep copy shares the class that torch made for the original, and removal edits that class.
        cls = type(module)
        module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)


def plan_of(model: nn.Module, *, floats: torch.dtype = torch.float32, significand: int | None = None) -> Plan:
    """The plan of everything the network computes with.

    Args:
        model: a network, attached or plain.
        floats: type in which the numbers of all other tensors are kept, such as ``torch.float16``.
        significand: significant bits that each of them keeps; ``None``: all that the type has.
    """
    small = partial(shortened, floats=floats, significand=significand)
    holders = held(model)
    names = {id(weight): name for name, weight in background(model).items()}
    counted = counters(model)
    entries: dict[str, Entry] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        name = key.replace(".parametrizations.", ".").removeprefix("parametrizations.")
        if name.endswith(".original") and id(tensor) in names:
            name = name.removesuffix(".original")
            # A layer under two names is held under the first, and has both in a state dict.
            holder = holders.get(name) or holders[names[id(tensor)]]
            entries[name] = _on_cpu(holder.entry(tensor), small)
        elif "parametrizations." in key or name in counted:
            continue
        else:
            entries[name] = Dense(small(tensor.detach().cpu().clone()))
    return Plan(entries, channels_of(model))


def _on_cpu(entry: Clustered | Masked | Affine, small: Callable[[Tensor], Tensor]) -> Clustered | Masked | Affine:
    """A copy that shares nothing with what is being trained."""
    if isinstance(entry, Clustered):
        return replace(entry, levels=entry.levels.to("cpu", copy=True))
    if isinstance(entry, Affine):
        return replace(entry, levels=entry.levels.to("cpu", copy=True), scales=entry.scales.to("cpu", copy=True))
    data = small(entry.data.cpu())
    return replace(entry, data=data, mask=entry.mask.cpu() & (data != 0))  # some are zero in fewer bits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, without gradients, every attached tensor computed once; the modes are restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with parametrize.cached(), torch.no_grad():
            yield model
    finally:
        for module, mode in modes.items():  # some may have been frozen in a network that trains
            module.training = mode


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    try:
        module = model.get_submodule(path)
        present = isinstance(getattr(module, attribute), Tensor)
    except AttributeError:
        present = False
    if not present:
        raise MismatchError(f"the network has no tensor {name!r}{did_you_mean(name, model.state_dict())}")
    return module, attribute
