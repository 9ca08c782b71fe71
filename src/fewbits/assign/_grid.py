"""The uniform symmetric grid: integers times one step size per layer.

With b bits the levels are ``-(2**(b-1) - 1) .. 2**(b-1) - 1``: 3 levels at 2 bit, 15 at 4 bit. This is the
"symmetric 2 bit case" of the ECQx paper (Fig. 5). The released code uses 2**b levels, one more on the side
that a vote over the weights' statistics picks; the symmetric grid gives that level up so that a sign change
of a layer is a sign change of its plan.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fewbits.assign._batched import Query, run_alone
from fewbits.assign._diagram import Table, boundaries, locate
from fewbits.errors import AS_REAL, NonFiniteError, RecipeError, SelectionError
from fewbits.plan import MAX_BITS, Clustered

LOSSLESS = 8
"""Bits from which on a grid holds every weight: rounding the largest ones' share costs less than cutting them off."""


def highest(bits: int) -> int:
    """The largest level of the grid, ``2**(bits-1) - 1``; a bit width other than 2..16 is a RecipeError."""
    if bits not in range(2, MAX_BITS + 1):
        raise RecipeError(f"bits must be an integer in 2..{MAX_BITS}, got {bits}")
    return 2 ** (bits - 1) - 1


def centroids(step: float, bits: int) -> Table:
    """Float64 values of all levels, rising."""
    top = highest(bits)
    return np.arange(-top, top + 1, dtype=np.float64) * step


def flat(name: str, weight: Tensor) -> tuple[Tensor, float, float]:
    """:func:`flattening`, at once."""
    return run_alone(flattening(name, weight))


def flattening(name: str, weight: Tensor) -> Query[tuple[Tensor, float, float]]:
    """``weight`` as a flat float32 tensor, with its smallest and largest element (0 and 0 if it is empty).

    Raises:
        SelectionError: not a floating-point tensor.
        NonFiniteError: NaN or infinity (also: a float64 number beyond float32).
    """
    if not weight.is_floating_point():
        way = f"; {AS_REAL}" if weight.is_complex() else ""
        raise SelectionError(f"weight {name!r} must be floating-point, got {weight.dtype}{way}")
    x = weight.detach().reshape(-1).to(torch.float32)
    if not x.numel():
        return x, 0.0, 0.0
    low, high = map(float, (yield torch.stack(torch.aminmax(x))))  # NaN propagates, so one pass finds everything
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NonFiniteError(f"weight {name!r} has NaN or infinity")
    return x, low, high


def kth_smallest(x: Tensor, k: int) -> Tensor:
    """The k-th smallest element (k from 1) of a flat tensor of any size, as a tensor of no dimension."""
    # torch.quantile refuses more than 2**24 elements; CUDA's kthvalue is barred from deterministic runs.
    return x.kthvalue(k).values if x.device.type == "cpu" else x.sort().values[k - 1]


@torch.no_grad()
def step_size(weight: Tensor, bits: int, percentile: float | None = None, name: str = "weight") -> float:
    """Step size that puts the percentile of ``|weight|`` (nearest rank) on the outermost level.

    Falls back to ``max |weight|`` if the percentile is 0, and to 1.0 for a tensor that is empty or all zero.

    Args:
        percentile: ``None`` is 99.9 below 8 bits, and 100 from there on. Few levels are better spent on most weights
            than on the largest; with many, what is cut off outweighs all rounding, and more bits would not help.

    Returns:
        The percentile over ``2**(bits-1) - 1``, a positive float32 number in the weight's unit. No weight up to the
        percentile is further than half a step from its level.

    Raises:
        RecipeError: bits outside 2..16, percentile outside (0, 100].
        NonFiniteError, SelectionError: see :func:`flat`.

    Source: released ECQx code (99.9-th percentile, fallback to the maximum); the paper gives no rule.
    """
    top = highest(bits)
    if percentile is None:
        percentile = 99.9 if bits < LOSSLESS else 100.0
    if not 0 < percentile <= 100:
        raise RecipeError(f"percentile must lie in (0, 100], got {percentile}")
    x, low, high = flat(name, weight)
    largest = max(-low, high)
    if largest == 0:
        return 1.0
    reach = float(kth_smallest(x.abs(), max(1, math.ceil(percentile * x.numel() / 100))))
    return _in_float32((reach or largest) / top, top)


def _in_float32(step: float, top: int) -> float:
    """The step as a float32 number whose multiples reach ``top * step``, but not beyond float32."""
    nearest_one = np.float32(step)
    if top * (step - float(nearest_one)) > 0.5 * float(nearest_one):  # few bits are left of subnormal numbers
        nearest_one = np.nextafter(nearest_one, np.float32(np.inf))
    if top * float(nearest_one) > torch.finfo(torch.float32).max:
        nearest_one = np.nextafter(nearest_one, np.float32(0))
    return float(nearest_one)


@torch.no_grad()
def nearest(weight: Tensor, step: float, bits: int, name: str = "weight") -> Tensor:
    """int16 levels nearest to ``weight / step``, of the weight's shape; half-way goes towards zero.

    Raises:
        RecipeError: bits outside 2..16, or a step that is not positive and finite.
        NonFiniteError, SelectionError: see :func:`flat`.
    """
    if not (math.isfinite(step) and step > 0):
        raise RecipeError(f"step size of {name!r} must be positive and finite, got {step}")
    x, _, _ = flat(name, weight)
    table = centroids(step, bits)
    return locate(x, boundaries(table, np.zeros_like(table))).view(weight.shape)


@torch.no_grad()
def gradient_scale(entry: Clustered) -> Tensor:
    """Factor from the gradient at the quantized weights to that of the background weights.

    ``|w_c|`` for a weight in a non-zero cluster and 1 in the zero cluster: float32, of the weight's shape.

    Source: ECQx paper, Fig. 5, step 3, and EC2T. The released ECQx code multiplies by the signed ``w_c``,
    which flips the gradient of every weight in a negative cluster.
    """
    return entry.values().abs_().masked_fill_(entry.levels == 0, 1.0)
