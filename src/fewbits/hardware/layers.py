"""What a machine has to do for a network: one record for each layer, with the zeros and levels of a real plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import log2, prod
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.hardware.calls import Call, calls
from fewbits.hardware.count import planned
from fewbits.plan import Affine, Clustered, Entry, Masked, Plan
from fewbits.task.batches import Inputs, samples_in


class Known(StrEnum):
    """Where a layer's zeros come from."""

    COUNTED = "counted"  # in the plan's weights, or in real inputs
    DENSITY = "density"  # a share that was given
    DENSE = "dense"  # nothing was given: no zeros


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer on inputs of one size, for one sample; or a product of two values, as attention has them.

    Attributes:
        name: of its weight; of a product of values, the module and the shapes.
        calls: how often it is used on inputs of this size.
        outputs, inputs: channels. groups: of channels. kernel, stride, dilation: of a convolution; () of others.
        size_in, size_out: positions along each axis; of a linear layer, one axis of all its positions.
        weights: numbers of its weight. nonzero: those that are not zero; a share of them where a density is given.
        bits: that a weight takes without coding. levels: how many values it takes; 0 where nobody knows.
        entropy_bits: zero-order entropy of the levels, in bits a weight; ``None`` where there are none.
        input_density: share of inputs that are not zero, as they are read (padding left out).
        products: multiplications of one call in which weight and input are both not zero.
        weights_known, inputs_known: where the zeros come from.
        mask: where the weight is not zero, of its shape, if that is known.
        counted: what was found in this mask before, as it takes long.
        stored: whether its weight lies in memory; the second of two values does not, and is of an input's width.
    """

    name: str
    calls: int
    outputs: int
    inputs: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    size_in: tuple[int, ...]
    size_out: tuple[int, ...]
    weights: int
    nonzero: float
    bits: int
    levels: int
    entropy_bits: float | None
    input_density: float
    products: float
    weights_known: Known
    inputs_known: Known
    mask: Tensor | None = field(default=None, repr=False)
    counted: dict[Any, Any] = field(default_factory=dict, repr=False)
    stored: bool = True

    def __post_init__(self) -> None:
        if self.counted.setdefault("mask", self.mask) is not self.mask:  # a copy with another mask
            object.__setattr__(self, "counted", {"mask": self.mask})

    @property
    def positions(self) -> int:
        """Outputs of one channel, of one call."""
        return prod(self.size_out)

    @property
    def reduction(self) -> int:
        """Products that make up one output."""
        return self.inputs // self.groups * prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one call, zeros included."""
        return self.weights * self.positions

    @property
    def density(self) -> float:
        """Share of weights that are not zero."""
        return self.nonzero / self.weights

    @property
    def input_numbers(self) -> int:
        """Numbers that one call reads, each once."""
        return self.inputs * prod(self.size_in)

    @property
    def output_numbers(self) -> int:
        """Numbers that one call makes."""
        return self.outputs * self.positions

    def follows(self, kept: int, of: int) -> bool:
        """Whether each ``of`` consecutive weights along the inputs hold at most ``kept`` (an N:M pattern)."""
        if self.mask is None:
            return False
        if (kept, of) not in self.counted:
            rows = self.mask.reshape(self.outputs, self.inputs // self.groups, -1)
            # Scattered zeros show in the first rows.
            self.counted[kept, of] = all(_follow(part, kept, of) for part in (rows[:4], rows[4:]))
        return bool(self.counted[kept, of])


def _follow(rows: Tensor, kept: int, of: int) -> bool:
    rows = F.pad(rows.movedim(1, -1), (0, -rows.shape[1] % of)).unflatten(-1, (-1, of))
    return bool((rows.sum(-1, dtype=torch.int16) <= kept).all())


def layers(
    model: nn.Module,
    inputs: Any,
    plan: Plan | None = None,
    *,
    density: float | Mapping[str, float] | None = None,
    input_density: float | Mapping[str, float] | None = None,
) -> tuple[Layer, ...]:
    """One record for each layer and size of its inputs, in order of first use.

    Args:
        model: a plain network; runs once, in evaluation mode.
        inputs: the shape of one sample, without the batch; or the inputs of a batch, whose real zeros are then counted.
        plan: whose zeros and levels are counted; default: a dense network of the model's own numbers. A plan that lost
            channels gives smaller layers; real inputs then need the smaller network.
        density: without a plan, the share of weights that are not zero, of all layers or by name of the weight.
        input_density: without real inputs, the share of a layer's inputs that are not zero, likewise.

    Raises:
        UnsupportedError: the network does not take such a sample, or multiplies in a way that cannot be counted.
        MismatchError: the plan is of another one.
        RecipeError: a density beside what is counted, outside 0..1, or of no layer.
    """
    real = isinstance(inputs, Tensor | Inputs)
    if plan is not None and density is not None:
        raise RecipeError("a plan has zeros of its own: give either a plan or a density")
    if real and input_density is not None:
        raise RecipeError("real inputs have zeros of their own: give either them or input_density")
    found = calls(model, inputs, zeros=real)
    names = {call.name for call in found}
    samples = samples_in(inputs) if real else 1
    weights = _shares("density", density, names)
    return records_of(found, plan, samples, weights, _shares("input_density", input_density, names))


def records_of(
    found: Sequence[Call],
    plan: Plan | None = None,
    samples: int = 1,
    density: Mapping[str, float] = MappingProxyType({}),
    input_density: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Layer, ...]:
    """The records of calls that are known already; see :func:`layers`.

    Args:
        samples: of the batch that ran. density, input_density: by name of the weight.
    """
    records: dict[tuple[Any, ...], Layer] = {}
    facts: dict[str, _Weight] = {}
    for call in found:
        if call.name not in facts:
            entry = None if plan is None or call.parameter is None else _entry(plan, call)
            facts[call.name] = _weight(call, entry, density.get(call.name))
        layer = _layer(call, facts[call.name], samples, input_density.get(call.name))
        key = (layer.name, layer.size_in, layer.size_out, layer.stride, layer.dilation)
        if key in records:
            before = records[key]
            mean = (before.products * before.calls + layer.products) / (before.calls + 1)
            share = (before.input_density * before.calls + layer.input_density) / (before.calls + 1)
            layer = replace(before, calls=before.calls + 1, products=mean, input_density=share)
        records[key] = layer
    return tuple(records.values())


def _entry(plan: Plan, call: Call) -> Entry:
    name = str(call.parameter)
    narrow = plan.channels is not None and name in plan.channels.kept and call.nonzero is None
    entry: Entry = planned(plan, name, None if narrow else call.whole)
    return entry


@dataclass(frozen=True, eq=False)
class _Weight:
    shape: tuple[int, ...]
    nonzero: float
    bits: int
    levels: int
    entropy_bits: float | None
    known: Known
    mask: Tensor | None


def _shares(key: str, given: float | Mapping[str, float] | None, names: set[str]) -> dict[str, float]:
    shares = dict.fromkeys(names, given) if not isinstance(given, Mapping) else dict(given)
    for name, share in shares.items():
        if name not in names:
            raise RecipeError(f"{key}: the network has no layer {name!r}; there are {', '.join(sorted(names))}")
        if share is not None and not 0 <= share <= 1:
            raise RecipeError(f"{key} of {name!r} is a share from 0 to 1, got {share}")
    return {name: float(share) for name, share in shares.items() if share is not None}


def _weight(call: Call, entry: Entry | None, density: float | None) -> _Weight:
    weight = call.weight
    width = 8 * weight.element_size()
    if entry is None:
        known = Known.DENSE if density is None else Known.DENSITY
        return _Weight(
            tuple(weight.shape), weight.numel() * (1.0 if density is None else density), width, 0, None, known, None
        )
    if isinstance(entry, Clustered | Affine):
        mask = call.turned(entry.kept)
        levels = call.turned(entry.levels).flatten()
        if entry.bits <= 8:
            levels = (levels + 128).to(torch.uint8)
        counts = (levels if entry.bits <= 8 else levels.int() + 2**15).bincount()  # sorting would take seconds
        shares = [count / len(levels) for count in counts.tolist() if count]
        entropy = -sum(share * log2(share) for share in shares)
        shape, nonzero = tuple(mask.shape), int(mask.count_nonzero())
        return _Weight(shape, nonzero, entry.bits, len(shares), entropy, Known.COUNTED, mask)
    mask = call.turned(entry.kept if isinstance(entry, Masked) else entry.data != 0)
    shape, nonzero = tuple(mask.shape), int(mask.count_nonzero())
    return _Weight(shape, nonzero, 8 * entry.data.element_size(), 0, None, Known.COUNTED, mask)


def _layer(call: Call, weight: _Weight, samples: int, input_density: float | None) -> Layer:
    stored, groups, positions = call.parameter is not None, call.groups, call.positions
    if stored or groups % samples:
        positions, over = divmod(positions, samples)
    else:  # each sample is multiplied with values of its own
        groups, over = groups // samples, 0
    if over:
        raise UnsupportedError(
            f"{call.name}: {call.positions} positions are not the same number for each of {samples} samples; give one"
        )
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    size_in: tuple[int, ...] = (positions,)
    size_out: tuple[int, ...] = (positions,)
    outputs, share_of_samples = weight.shape[0], 1
    if not stored and groups < call.groups:
        outputs, share_of_samples = outputs * groups // call.groups, samples
    if call.sliding is not None:
        if weight.shape[1] == 1 < groups:  # depthwise: a channel that is gone was a group
            groups = weight.shape[0] * groups // call.weight.shape[0]
        kernel, stride, dilation = tuple(call.weight.shape[2:]), call.sliding.stride, call.sliding.dilation
        size_in, size_out = call.inputs[-len(kernel) :], call.shape[-len(kernel) :]
    weights, nonzero = prod(weight.shape) // share_of_samples, weight.nonzero / share_of_samples
    share, products, known = 1.0, nonzero * positions, Known.DENSE
    if call.nonzero is not None:
        share, known = float(call.nonzero.double().mean()), Known.COUNTED
        mask = weight.mask if weight.mask is not None else torch.ones(weight.shape, dtype=torch.bool)
        products = products_of(call, mask if stored else call.weight != 0) / samples
        if stored and weight.mask is None:
            products *= weight.nonzero / mask.numel()
    elif input_density is not None:
        share, known, products = input_density, Known.DENSITY, products * input_density
    return Layer(
        call.name, 1, outputs, weight.shape[1] * groups, groups, kernel, stride, dilation, size_in, size_out,
        weights, nonzero, weight.bits, weight.levels, weight.entropy_bits, share, products, weight.known, known,
        weight.mask, stored=stored,
    )  # fmt: skip


def products_of(call: Call, mask: Tensor) -> int:
    """Multiplications of a call in which neither the weight nor the input is zero; padding is zero.

    Each input counts once for every weight that meets it, so weights are summed over the outputs first.

    Args:
        call: with its ``nonzero``. mask: where the weight is not zero, of the form of ``call.weight``.
    """
    assert call.nonzero is not None
    inputs, slide = call.nonzero.double(), call.sliding  # sums beyond 2^24 are exact in float64
    met = mask.double().unflatten(0, (call.groups, -1)).sum(1)
    if slide is None:
        return int((inputs.sum(1) * met).sum())
    padding: tuple[int, ...] | str | int = slide.padding
    if slide.padding_mode != "zeros":
        inputs, padding = F.pad(inputs, slide.edges, mode=slide.padding_mode), 0
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(slide.stride)]
    return int(convolve(inputs, met, None, slide.stride, padding, slide.dilation, call.groups).sum())
