"""The integer form of a network: normalisation folded, a quantizer wherever integer arithmetic needs a grid.

The one form that is not the user's own forward: a quantizer may sit between two operations of one line of it, and
runtimes fuse integers only around them. It is made by one pass over the graph, which depends on nothing but the
network's class, so a file's network is rebuilt from that class. Of a network that ``torch.fx`` cannot trace it is the
user's own forward after all, with quantizers in front of layers (:mod:`fewbits.int8.inputs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import is_not
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.approximation import approximations_of
from fewbits.attach import ClusteredWeight, MaskedWeight, attach, held
from fewbits.attach.attach import counters, plain_name
from fewbits.attach.precision import shortened
from fewbits.channel_masks import ChannelMasks
from fewbits.channels.load import load_plan
from fewbits.channels.surgery import with_numbers
from fewbits.errors import DataError, NonFiniteError, SelectionError, UnsupportedError
from fewbits.int8.affine_grid import affine, to_levels, weight_scales, with_room_for
from fewbits.int8.alone.form import alone_form, grids_of, is_alone, is_alone_plan
from fewbits.int8.folding import folded
from fewbits.int8.inputs import hooked_form, inputs_on_grids
from fewbits.int8.places import grid_of, places
from fewbits.int8.quantizer import Quantizer, RangedQuantizer
from fewbits.ops.swap import computing
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked, Plan
from fewbits.task import handing, run
from fewbits.weights import aliases, layers, select

QUANTIZERS = "quantizers"


def integer_form(
    model: nn.Module,
    quantizer: type[nn.Module] = Quantizer,
    *,
    whole: bool = False,
    alone: bool = False,
    inputs: Any = None,
) -> nn.Module:
    """A copy of a network with normalisation folded and quantizers (``quantizers.<name>``) inserted.

    Args:
        whole: whether there is nothing but integers, see :func:`~fewbits.int8.places.places`. A network that
            ``torch.fx`` cannot trace has grids in front of its layers, and nowhere else.
        alone: whether it computes in integers alone, see :mod:`fewbits.int8.alone`; this needs inputs.
        inputs: of a batch; where ``torch.fx`` cannot trace the network, normalisation is folded as it is seen on these.

    Raises:
        SelectionError: no layer to quantize, or the network is in integer form already. UnsupportedError: no layer, and
            a structure that ``torch.fx`` cannot trace.
    """
    if alone and not is_integer(model):
        return alone_form(model, quantizer, inputs=inputs)[0]
    return with_factors(model, quantizer, whole=whole, inputs=inputs)[0]


def with_factors(
    model: nn.Module,
    quantizer: type[nn.Module] = Quantizer,
    *,
    whole: bool = False,
    inputs: Any = None,
    names: Iterable[str] | None = None,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """:func:`integer_form`, and what folding multiplied each layer's weights with, see :func:`folded`.

    Args:
        names: of the tensors of a form that was made before.
    """
    if is_integer(model):
        raise SelectionError(f"{type(model).__name__} is in integer form already")
    try:
        net, factors = folded(model)
    except UnsupportedError:
        if not layers(model):
            raise
        return hooked_form(model, quantizer, QUANTIZERS, inputs=inputs, names=names)
    if not layers(net):
        raise SelectionError(f"{type(model).__name__} has no linear or convolutional layer to quantize")
    return _with_quantizers(net, quantizer, whole).to(next(model.parameters()).device), factors


def form_for(names: Iterable[str], like: nn.Module, quantizer: type[nn.Module] = Quantizer) -> nn.Module:
    """The integer form of ``like`` that tensors of these names are of: whole, or with outputs that are floats.

    Args:
        names: also a plan; if it has lost channels, ``like`` may be the network before.

    Raises:
        As :func:`integer_form`.
    """
    with with_numbers(like, names.channels if isinstance(names, Plan) else None):
        return _form_for(tuple(names), like, quantizer)


def _form_for(names: tuple[str, ...], like: nn.Module, quantizer: type[nn.Module]) -> nn.Module:
    if is_alone_plan(names):
        return alone_form(like, quantizer, names=names)[0]
    wanted = {name.split(".")[1] for name in names if name.startswith(f"{QUANTIZERS}.")}
    net = with_factors(like, quantizer, names=names)[0]
    here = {name for name, _ in net.get_submodule(QUANTIZERS).named_children()}
    return integer_form(like, quantizer, whole=True) if wanted > here else net


def _with_quantizers(net: fx.GraphModule, quantizer: type[nn.Module], whole: bool) -> fx.GraphModule:
    holder = nn.Module()
    for name, nodes in places(net, whole=whole).items():
        holder.add_module(name, quantizer())
        for node in nodes:
            with net.graph.inserting_after(node):
                # Added below; fx looks for it now.
                call = net.graph.create_node("call_module", f"{QUANTIZERS}.{name}", (node,), {})
            node.replace_all_uses_with(call, delete_user_cb=partial(is_not, call))
    net.add_module(QUANTIZERS, holder)
    net.recompile()
    return net.eval()


def grids(net: nn.Module) -> dict[str, str]:
    """``{path of a layer: path of the quantizer on whose grid its input is}`` of a network in integer form."""
    return grid_of(net) if isinstance(net, fx.GraphModule) else inputs_on_grids(net)


def is_integer_plan(names: Iterable[str]) -> bool:
    """Whether the tensors of these names are those of an integer form."""
    return any(name.startswith(f"{QUANTIZERS}.") for name in names)


def is_integer(model: nn.Module) -> bool:
    """Whether a network is in integer form."""
    return isinstance(getattr(model, QUANTIZERS, None), nn.Module)


def hold_affine(net: nn.Module) -> None:
    """Let every layer of an integer form compute with its nearest INT8 weights of now, in place."""
    weights, assigner = select(net), affine()
    attach(net, assigner.update(weights, None, assigner.init(weights))[0])


@torch.no_grad()
def calibrate(net: nn.Module, batches: Iterable[Any]) -> int:
    """Set the range of every quantizer to the mean of the batches' minima and maxima, in place.

    Args:
        net: an integer form with :class:`RangedQuantizer`, in evaluation mode; quantizers quantize nothing meanwhile.
        batches: inputs on the network's device.

    Returns:
        The number of batches.

    Raises:
        DataError: no batches, or one that the network does not take; the message names it. NonFiniteError: an
            activation is NaN or infinite; the message names the batch and the quantizer. UnsupportedError: parts of a
            tensor are fewer than the form that was read has.
    """
    found = {name: m for name, m in net.named_modules() if isinstance(m, RangedQuantizer)}
    for module in found.values():
        module.start()
    count = 0
    try:
        for inputs in batches:
            count += 1
            place = f"batch {count} of the calibration data"
            with handing(net, inputs, place), _all_parts(net), computing(net):
                run(net.forward, inputs)  # type: ignore[arg-type]  # not net(): a traced one prints what it raises
            for name, module in found.items():
                module.next_batch()
                if not (torch.isfinite(module.low) and torch.isfinite(module.high)):
                    raise NonFiniteError(
                        f"{place}: activations at {name.removeprefix(QUANTIZERS + '.')!r} hold NaN or infinity; are "
                        "its inputs finite?"
                    )
    finally:
        for module in found.values():
            module.observing = False
    if not count:
        raise DataError("the calibration data is empty: the loader yields no batch")
    return count


@contextmanager
def _all_parts(net: nn.Module) -> Iterator[None]:
    try:
        yield
    except IndexError as error:
        if "tuple index" not in str(error):
            raise
        raise UnsupportedError(
            f"{type(net).__name__} does not compute once torch.fx has read its structure ({error}): a tensor is split "
            "into fewer parts than were asked for; ecq, ecqx and pruning do without"
        ) from error


@torch.no_grad()
def affine_plan(net: nn.Module, *, channels: ChannelMasks | None = None, floats: torch.dtype = torch.float32) -> Plan:
    """The plan of an integer form in training: weights as they are held, quantizers, and the rest as floats.

    Integer weights are made anew from their background weights, with room for the bias in the accumulator.

    Args:
        channels: what is left of a larger network, if the float network that ``net`` was made of had lost channels.
        floats: precision in which biases (and what else is left) are kept. Scales are float32.
    """
    inputs, holders, others = grids(net), held(net), aliases(net)
    counted = counters(net)
    readers: dict[str, list[str]] = {}  # the layers that compute with each weight
    for path in layers(net):
        readers.setdefault(others.get(f"{path}.weight", f"{path}.weight"), []).append(path)
    entries: dict[str, Entry] = {}
    for key, tensor in net.state_dict().items():
        name = plain_name(key)
        path, _, leaf = name.rpartition(".")
        if name in others:
            continue
        if isinstance(holders.get(name), ClusteredWeight | MaskedWeight):
            entries[name] = _held(holders[name].entry(tensor), floats)
        elif name in holders:
            scales = weight_scales(tensor.cpu())
            for reader in readers.get(name, ()):
                bias = layers(net)[reader].bias
                if bias is not None and reader in inputs:
                    kept = shortened(bias.detach().cpu(), floats)
                    scales = with_room_for(scales, kept, float(_frozen(net, inputs[reader]).scale))
            entries[name] = Affine(to_levels(tensor.cpu(), scales), scales)
        elif path.startswith(f"{QUANTIZERS}."):
            if leaf == "low":
                entries |= {f"{path}.{n}": Dense(t) for n, t in _frozen(net, path).state_dict().items()}
        elif name not in counted and "parametrizations." not in key:
            entries[name] = Dense(shortened(tensor.detach().cpu().clone(), floats))
    left = None if channels is None else of_integer_form(channels, entries)
    known = {other: first for other, first in others.items() if first in entries}
    return Plan(entries, left, known, approximations_of(net))


def _held(entry: Clustered | Masked | Affine, floats: torch.dtype) -> Entry:
    """A copy on the CPU that shares nothing with what is being trained."""
    if isinstance(entry, Masked):
        data = shortened(entry.data.detach().cpu(), floats)
        return Masked(data, entry.mask.cpu() & (data != 0))
    return replace(entry, levels=entry.levels.to("cpu", copy=True))


def of_integer_form(channels: ChannelMasks, entries: Mapping[str, Entry]) -> ChannelMasks:
    """The same removal from the integer form: without folded normalisation, and with the biases that it left."""
    kept = {name: masks for name, masks in channels.kept.items() if name in entries}
    for name, masks in list(kept.items()):
        bias = f"{name.removesuffix('weight')}bias"
        if name.endswith("weight") and bias in entries:
            kept.setdefault(bias, (masks[0],))
    return ChannelMasks(kept, channels.paddings)


def _frozen(net: nn.Module, path: str) -> Quantizer:
    module = net.get_submodule(path)
    return module.frozen() if isinstance(module, RangedQuantizer) else module  # type: ignore[return-value]


@torch.no_grad()
def load_affine(net: nn.Module, plan: Plan) -> None:
    """Give an integer form the tensors of ``plan``, in place; biases go to the nearest unit of their layer's
    accumulator.

    Raises:
        MismatchError: names or shapes differ.
    """
    load_plan(net, plan)
    if is_alone(net):
        grids_of(net).learnt(plan)
    for path, units in bias_units(net, plan).items():
        bias = layers(net)[path].bias
        assert bias is not None
        units = units.to(bias.device)
        bias.copy_((bias / units).round_() * units)


def bias_units(net: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """For each layer with a bias and an input on a grid, ``input scale * weight scale``: float32 [channels]."""
    inputs = grids(net)
    found = {}
    for path, layer in layers(net).items():
        entry = plan.named(f"{path}.weight")
        if isinstance(entry, Affine) and layer.bias is not None and path in inputs:
            found[path] = entry.scales * _frozen(net, inputs[path]).scale.cpu()
    return found
