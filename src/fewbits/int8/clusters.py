"""Clusters in the integer form: levels stay what they are, and the step becomes the scale of every channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.attach.attach import counters
from fewbits.attach.precision import rounded, shortened
from fewbits.channels.load import load_plan
from fewbits.errors import UnsupportedError
from fewbits.int8.affine_grid import LEVELS, SMALLEST, to_levels, weight_scales, with_room_for
from fewbits.int8.form import QUANTIZERS, calibrate, form_for, grids, integer_form, of_integer_form, with_factors
from fewbits.int8.quantizer import RangedQuantizer
from fewbits.plan import Affine, Clustered, Dense, Entry, Plan
from fewbits.weights import aliases, layers

DIGITS = 8  # significant bits of a scale: as exact as the levels that it multiplies
NEAR = 2.0**-DIGITS  # how far a value of a codebook may be from a level, relative to the value


def ranges_of(model: nn.Module, batches: Iterable[Any]) -> dict[str, Dense]:
    """Scale and zero point of each quantizer of a network's integer form, outputs included, from the data.

    Args:
        model: a float network. batches: inputs on its device.

    Raises:
        As :func:`fewbits.int8.calibrate` and :func:`fewbits.int8.integer_form`.
    """
    net = integer_form(model, RangedQuantizer, whole=True)
    calibrate(net, batches)
    return {
        f"{path}.{name}": Dense(tensor)
        for path, module in net.named_modules()
        if isinstance(module, RangedQuantizer)
        for name, tensor in module.frozen().state_dict().items()
    }


def clustered_plan(
    model: nn.Module,
    plan: Plan,
    ranges: Mapping[str, Dense],
    *,
    floats: torch.dtype = torch.float32,
    significand: int | None = None,
) -> Plan:
    """The plan of a network's integer form, with quantized outputs, whose weights are the clusters of ``plan``.

    A folded normalisation multiplies each channel's scale; where its factor is negative, levels change their sign.
    Layers that the plan leaves as floats become ordinary INT8.

    Args:
        model: the float network; it holds the values of ``plan``. ranges: of :func:`ranges_of`.
        floats, significand: how biases (and what else is left) are kept. Scales have 8 significant bits, or fewer.

    Raises:
        UnsupportedError: levels of more than 8 bits; the message names the weight.
    """
    net, factors = with_factors(model, whole=True)
    inputs, others, counted = grids(net), aliases(net), counters(net)
    found: dict[str, Entry] = dict(ranges)
    for path, layer in layers(net).items():
        name = others.get(f"{path}.weight", f"{path}.weight")
        entry, made = plan.named(name), found.get(name)
        bias, grid = layer.bias, inputs.get(path)
        fit = None
        if bias is not None and grid is not None:
            fit = shortened(bias.detach().cpu(), floats, significand), float(ranges[f"{grid}.scale"].data)
        if isinstance(entry, Clustered):
            if not isinstance(made, Affine):  # else another layer has the same weight
                made = on_scales(name, entry, factors.get(path), min(significand or DIGITS, DIGITS))
            found[name] = made if fit is None else _with_room(made, *fit)
        elif entry is None or isinstance(entry, Dense):
            scales = made.scales if isinstance(made, Affine) else weight_scales(layer.weight.cpu())
            scales = scales if fit is None else with_room_for(scales, *fit)
            found[name] = Affine(to_levels(layer.weight.cpu(), scales), scales)
    entries: dict[str, Entry] = {}
    for name, tensor in net.state_dict().items():
        if name in others or name in counted:
            continue
        known: Entry | None = found.get(name) or plan.compressed.get(name)
        entries[name] = known or Dense(shortened(tensor.detach().cpu().clone(), floats, significand))
    left = None if plan.channels is None else of_integer_form(plan.channels, entries)
    names = {other: first for other, first in others.items() if first in entries}
    return Plan(entries, left, names, plan.approximations)


def ranged_form(plan: Plan, like: nn.Module) -> nn.Module:
    """The integer form of a plan for a training of biases and ranges; weights get no gradients.

    Args:
        plan: of :func:`clustered_plan`. like: a float network of the same class.
    """
    net = form_for(plan, like, RangedQuantizer)
    ends: dict[str, Dense] = {}
    for path, module in net.named_modules():
        if isinstance(module, RangedQuantizer):
            scale, zero = plan[f"{path}.scale"].values(), plan[f"{path}.zero_point"].values().float()
            ends |= {f"{path}.low": Dense(-zero * scale), f"{path}.high": Dense((LEVELS - zero) * scale)}
    rest = {name: entry for name, entry in plan.items() if not is_range(name)}
    load_plan(net, Plan(rest | ends, plan.channels, plan.aliases, plan.approximations))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in plan.compressed)
    for module in net.modules():
        if isinstance(module, RangedQuantizer):
            module.learn()
    return net


@torch.no_grad()
def adjusted(
    plan: Plan, net: nn.Module, *, floats: torch.dtype = torch.float32, significand: int | None = None
) -> Plan:
    """The plan with what a :func:`ranged_form` has learnt; levels stay as they are."""
    entries: dict[str, Entry] = {}
    for path, module in net.named_modules():
        if isinstance(module, RangedQuantizer):
            entries |= {f"{path}.{name}": Dense(tensor) for name, tensor in module.frozen().state_dict().items()}
    for name, tensor in net.state_dict().items():
        if name in plan and name not in entries and isinstance(plan[name], Dense):
            entries[name] = Dense(shortened(tensor.detach().cpu().clone(), floats, significand))
    inputs = grids(net)
    for path in layers(net):
        entry, bias = plan.named(f"{path}.weight"), entries.get(f"{path}.bias")
        if isinstance(entry, Affine) and isinstance(bias, Dense) and path in inputs:
            name = plan.aliases.get(f"{path}.weight", f"{path}.weight")
            scale = entries[f"{inputs[path]}.scale"].values()
            entries[name] = _with_room(entries.get(name, entry), bias.values(), float(scale))  # type: ignore[arg-type]
    return plan.updated(entries)


def is_range(name: str) -> bool:
    """Whether a tensor of this name is one of :func:`ranges_of`."""
    return name.startswith(f"{QUANTIZERS}.")


def on_scales(name: str, entry: Clustered, factor: Tensor | None, digits: int = DIGITS) -> Affine:
    """A clustered weight with a scale per output channel, ``|step * factor|``.

    Args:
        name: for errors. factor: float64 [channels], or ``None`` for a weight without a folded normalisation; its step
            then stays as exact as it was. digits: significant bits of scales, else.

    Raises:
        UnsupportedError: more than 8 bits.
    """
    levels, step, bits = _grid(entry)
    if bits > 8:
        raise UnsupportedError(
            f"{name} has levels of {bits} bits, and integers for runtimes have 8: give assign.bits of at most 8, or "
            "leave activations out"
        )
    levels = levels.cpu()
    if factor is None:
        return Affine(levels.to(torch.int8), torch.full((levels.shape[0],), step), bits=bits)
    scales = step * factor.cpu()
    shape = [-1] + [1] * (levels.dim() - 1)
    sign = torch.where(scales < 0, -1, 1).view(shape)
    tiny = scales.abs() < SMALLEST  # a channel that its normalisation has switched off
    levels = (levels * sign).masked_fill(tiny.view(shape), 0)
    return Affine(levels.to(torch.int8), rounded(scales.abs().clamp_min(SMALLEST).float(), digits), bits=bits)


def _with_room(entry: Affine, bias: Tensor, input_scale: float) -> Affine:
    """Raises the scales of channels whose bias would not fit the accumulator. Their levels, whose sum cannot be more
    than a small share of that bias, become zero: a raised scale has no place for them."""
    scales = with_room_for(entry.scales, bias, input_scale)
    raised = scales > entry.scales
    scales = torch.where(raised, torch.exp2(scales.log2().ceil()), scales)  # a power of two is cheap to write
    raised = raised.view([-1] + [1] * (entry.levels.dim() - 1))
    return Affine(entry.levels.masked_fill(raised, 0), scales, bits=entry.bits)


def _grid(entry: Clustered) -> tuple[Tensor, float, int]:
    """Levels, step and bits of a clustered weight, also of one with a codebook."""
    if entry.codebook is None:
        assert entry.step is not None
        return entry.levels, entry.step, entry.bits
    book = torch.tensor(entry.codebook, dtype=torch.float64)
    best: tuple[float, Tensor, float] | None = None
    for top in range(1, 128):  # the fewest levels that hold every value well enough
        step = float(book.abs().max()) / top or 1.0
        level = (book / step).round()
        level = torch.where(level == 0, book.sign(), level)  # what is not zero stays so
        off = float(((level * step - book).abs() / book.abs().clamp_min(2.0**-126)).max())
        if best is None or off < best[0]:
            best = off, level, step
        if off <= NEAR:
            break
    assert best is not None
    _, level, step = best
    bits = max(2, int(level.abs().max()).bit_length() + 1)
    return level.to(torch.int16)[entry.levels.cpu().long() - entry.lowest], step, bits
