"""Affine (INT8) quantization: integers with a scale, and for activations a zero point.

Weights are symmetric with a scale per output channel: element = scale * level, level in -127..127. Activations are
asymmetric with one scale and a true zero point: element = scale * (level - zero point), both in 0..255 (Jacob et al.
2018, arXiv 1712.05877, equation 1). Rounding is to the nearest integer, ties to even, after a division: what ONNX's
QuantizeLinear does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.state import LayerState, State
from fewbits.errors import NonFiniteError, RecipeError
from fewbits.plan import Affine, Plan

LEVELS = 255  # an activation's highest level
SMALLEST = 2.0**-60  # of a scale: products of two scales stay normal float32 numbers
BIAS_LIMIT = 2**30  # largest bias in units of the accumulator, which has 32 bits


def weight_scales(weight: Tensor, bits: int = 8, axis: int = 0) -> Tensor:
    """Scale of each channel: its largest magnitude over the highest level. float32 [channels].

    Args:
        weight: float tensor. bits: 2 to 8. axis: the dimension of the channels.
    """
    largest = weight.detach().float().movedim(axis, 0).flatten(1).abs().amax(1)
    return (largest / (2 ** (bits - 1) - 1)).clamp_min(SMALLEST)


def with_room_for(scales: Tensor, bias: Tensor, input_scale: float) -> Tensor:
    """The scales, raised where a channel's bias would not fit the accumulator otherwise.

    A bias is an integer in units of ``input scale * weight scale``. A channel that pruning or normalisation has made
    nearly zero has a tiny scale, and an ordinary bias would leave 32 bits.

    Args:
        scales, bias: float32 [channels]. input_scale: of what the layer reads.
    """
    return torch.maximum(scales, bias.detach().float().abs() / (input_scale * BIAS_LIMIT))


def to_levels(weight: Tensor, scales: Tensor, bits: int = 8, axis: int = 0) -> Tensor:
    """The nearest levels, int8 of the weight's shape."""
    top = 2 ** (bits - 1) - 1
    shape = [1] * weight.dim()
    shape[axis] = -1
    return (weight.detach().float() / scales.view(shape)).round_().clamp_(-top, top).to(torch.int8)


def range_parameters(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (a whole number 0..255, as float32) of activations in ``[low, high]``.

    The range is first widened to contain zero, which then is exactly a level: padding and pruned channels are exact.

    Args:
        low, high: scalars.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / LEVELS).clamp_min(SMALLEST)
    return scale, (-low / scale).round().clamp(0, LEVELS)


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``scale * (q - z)`` with ``q = clamp(round(x / scale) + z, 0, 255)``: the float that a level stands for.

    Args:
        x: float32, any shape. scale, zero_point: scalars.
    """
    z = zero_point.to(x.dtype)
    return (x / scale).round_().clamp_(-z, LEVELS - z).mul_(scale)


def affine(bits: int = 8) -> Assigner:
    """Every weight goes to the nearest of its channel's levels; scores are ignored.

    Raises:
        RecipeError: bits outside 2..8. NonFiniteError: from ``init`` and ``update``, naming the layer.
    """
    if not 2 <= bits <= 8:
        raise RecipeError(f"affine quantization has 2 to 8 bits, got {bits}")

    def check(weights: Weights) -> None:
        for name, weight in weights.items():
            if not bool(torch.isfinite(weight).all()):
                raise NonFiniteError(f"{name} holds NaN or infinity")

    def init(weights: Weights) -> State:
        check(weights)
        return State({name: LayerState() for name in weights})

    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        check(weights)
        entries = {}
        for name, weight in weights.items():
            state[name]  # an unknown layer is an error
            scales = weight_scales(weight, bits)
            entries[name] = Affine(to_levels(weight, scales, bits), scales, bits=bits)
        return Plan(entries), state

    return Assigner(init, update)
