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

from fewbits.approximation import approximations_of
from fewbits.attach._affine import AffineWeight
from fewbits.attach._base import Plus, base_at, hold_difference
from fewbits.attach._hold import ClusteredWeight
from fewbits.attach._mask import MaskedWeight
from fewbits.attach._recurrent import follow, settle
from fewbits.attach.precision import on_grid, shortened
from fewbits.channel_masks import channels_of
from fewbits.errors import MismatchError, SelectionError, UnsupportedError, did_you_mean
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked, Plan
from fewbits.task.modes import in_evaluation
from fewbits.weights import Place, aliases, places


def counters(model: nn.Module) -> set[str]:
    """Names of the buffers that count the training batches of a normalisation; no part of what the network computes."""
    norms = (path for path, module in model.named_modules(remove_duplicate=False) if isinstance(module, _NormBase))
    return {f"{path}.num_batches_tracked".lstrip(".") for path in norms}


Held = ClusteredWeight | MaskedWeight | AffineWeight
"""What holds a weight."""


def attach(model: nn.Module, plan: Mapping[str, object], *, learn: bool = False) -> None:
    """Hold the compressed entries of ``plan`` on ``model``, in place.

    The float weights stay as background weights (``module.parametrizations.weight.original``) and receive the
    gradients; the forward pass computes with the clustered and pruned tensors.

    A tensor that several modules share is held in all of them by one and the same parametrization.

    Of an entry with a base, the background weight is the weight's difference to it, and the base is added behind.

    Args:
        model: a plain network.
        plan: entries by tensor name; all but :class:`Dense` ones are attached. Any name of a shared tensor will do.
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
    for own in places(model).values():
        wanted = next((entries[place.name] for place in own if place.name in entries), None)
        if wanted is None:
            continue
        device = own[0].tensor.device
        holder = _holder(wanted, learn).to(device)
        base = None if wanted.base is None else wanted.base.to(device)
        if base is not None:
            hold_difference(own[0], base)
        for place in _distinct(own):
            parametrize.register_parametrization(place.module, place.attribute, holder)
            if base is not None:
                parametrize.register_parametrization(place.module, place.attribute, Plus(base))
            follow(place.module)


def _distinct(own: list[Place]) -> list[Place]:
    """The places of a tensor without those of a module that is there under another path."""
    return list({(id(place.module), place.attribute): place for place in reversed(own)}.values())[::-1]


def _holder(entry: Clustered | Masked | Affine, learn: bool) -> Held:
    if isinstance(entry, Masked):
        return MaskedWeight(entry)
    return AffineWeight(entry) if isinstance(entry, Affine) else ClusteredWeight(entry, learn=learn)


def held(model: nn.Module) -> dict[str, Held]:
    """``{tensor name: what holds it}`` of every attached weight, in the model's order; a shared one under its first."""
    return {own[0].name: holder for holder, own in _held_at(model).items()}


def _held_at(model: nn.Module) -> dict[Held, list[Place]]:
    """Where each holder is at work."""
    found: dict[Held, list[Place]] = {}
    for path, module in model.named_modules():
        chains = module.parametrizations.items() if parametrize.is_parametrized(module) else ()
        for attribute, chain in chains:
            if isinstance(chain[0], Held):
                found.setdefault(chain[0], []).append(Place(f"{path}.{attribute}".lstrip("."), module, attribute))
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
    _take_off(model, folded=True)


def release(model: nn.Module) -> None:
    """Give every attached weight its float background weight back: a plain network again, in place."""
    _take_off(model, folded=False)


def _take_off(model: nn.Module, *, folded: bool) -> None:
    for own in _held_at(model).values():
        base = None if folded else base_at(own[0])
        if base is not None:
            path, _, attribute = own[0].name.rpartition(".")
            with torch.no_grad():
                model.get_submodule(path).parametrizations[attribute].original.add_(base)  # type: ignore[index, union-attr]
        for number, place in enumerate(own):
            # A deep copy shares the class that torch made for the original, and removal edits that class.
            cls = type(place.module)
            place.module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
            # The tensor is computed once: what is left is no background weight, and could be computed again.
            parametrize.remove_parametrizations(
                place.module, place.attribute, leave_parametrized=folded and number == 0
            )
            settle(place.module)


def plan_of(
    model: nn.Module,
    *,
    floats: torch.dtype = torch.float32,
    significand: int | None = None,
    shared: bool = False,
    bases: Mapping[str, Tensor] | None = None,
) -> Plan:
    """The plan of everything the network computes with.

    Args:
        model: a network, attached or plain.
        floats: type in which the numbers of all other tensors are kept, such as ``torch.float16``.
        significand: significant bits that each of them keeps; ``None``: all that the type has.
        shared: levels are those that the network holds, which change when it holds others.
        bases: float32 tensors of another network, by name: what has one becomes a difference to it. Those of tensors
            that are not held are integers of ``significand`` bits if that is given, else numbers.
    """
    small = partial(shortened, floats=floats, significand=significand)
    holders, others = held(model), aliases(model)
    held_bases = {own[0].name: base_at(own[0]) for own in _held_at(model).values()}
    bases = bases or {}
    weights, counted = background(model), counters(model)
    entries: dict[str, Entry] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        name = plain_name(key)
        if name in others:
            continue
        if name != key and name in weights:
            entry = _on_cpu(holders[name].entry(tensor), small, copy=not shared)
            base = held_bases[name]
            entries[name] = entry if base is None else replace(entry, base=base.cpu())  # type: ignore[arg-type]
        elif "parametrizations." in key or name in counted:
            continue
        elif name in bases:
            entries[name] = _difference(tensor.detach().cpu(), bases[name], small, significand)
        else:
            entries[name] = Dense(small(tensor.detach().cpu().clone()))
    known = {other: first for other, first in others.items() if first in entries}
    return Plan(entries, channels_of(model), known, approximations_of(model))


def plain_name(key: str) -> str:
    """The name in the plain network of a background weight, by its key in a state dict; any other key as it is."""
    path, found, rest = f".{key}".rpartition(".parametrizations.")
    attribute, _, last = rest.partition(".")
    return f"{path}.{attribute}".lstrip(".") if found and last == "original" else key


def _difference(tensor: Tensor, base: Tensor, small: Callable[[Tensor], Tensor], bits: int | None) -> Entry:
    """What a tensor that nobody holds differs by from a base.

    Numbers that are about as large need few levels. Where half a step of them is too much for some number of the
    tensor, which has a precision of so many bits and at least that of the middle one, each keeps its own instead.
    """
    found = tensor - base
    if bits is None or not bool(found.any()):
        return Dense(small(found), base)
    levels, step = on_grid(found, bits)
    size = tensor.abs()
    if bool(((levels * step - found).abs() > 2.0**-bits * (size + size.median())).any()):
        return Dense(small(found), base)
    return Clustered(levels, bits, step=step, base=base)


def _on_cpu(
    entry: Clustered | Masked | Affine, small: Callable[[Tensor], Tensor], *, copy: bool
) -> Clustered | Masked | Affine:
    """On the CPU; a ``copy`` shares nothing with what is being trained."""
    if isinstance(entry, Clustered):
        return replace(entry, levels=entry.levels.to("cpu", copy=copy))
    if isinstance(entry, Affine):
        return replace(entry, levels=entry.levels.to("cpu", copy=copy), scales=entry.scales.to("cpu", copy=True))
    data = small(entry.data.cpu())
    return replace(entry, data=data, mask=entry.mask.cpu() & (data != 0))  # some are zero in fewer bits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, without gradients, every attached tensor computed once; the modes are restored."""
    hooks = [holder.register_forward_hook(_Once()) for holder, own in _held_at(model).items() if len(own) > 1]
    try:
        with in_evaluation(model), parametrize.cached(), torch.no_grad():
            yield model
    finally:
        for hook in hooks:
            hook.remove()


class _Once:
    """Gives the first output again: torch computes a tensor once for each module that has it."""

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        self.first = output if self.first is None else self.first
        return self.first


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
