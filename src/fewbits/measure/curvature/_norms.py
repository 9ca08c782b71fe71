"""Squared gradients of single samples, from a layer's inputs and the gradient at its outputs.

The gradient of a weight for sample n is ``G_n = delta_n U_n^T``, where U_n ``[K, P]`` holds the K inputs that each of
the P output positions saw and delta_n ``[O, P]`` the gradient there. Row c of it has the squared norm
``||G_nc||^2 = delta_nc (U_n^T U_n) delta_nc^T``: the Gram form never forms G ("ghost norm", Goodfellow 2015,
arXiv 1510.01799; for convolutions Bu et al. 2022, arXiv 2205.10683). Uses of the same weight are further positions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.measure.curvature._tap import Call
from fewbits.weights import is_turned


def squares(calls: list[Call], samples: int, *, rows: bool, workspace: int) -> Iterator[Tensor]:
    """Squared gradients of each sample, in chunks of samples.

    Args:
        calls: all uses of one weight, with their gradients.
        samples: how many the batch has.
        rows: squared norms per output, ``[n, O]``; otherwise every weight's square, ``[n, *weight.shape]``.
        workspace: bytes of temporary tensors that a chunk may take; one sample is the least.

    Yields:
        The squares of the next samples, in float32 or better.

    Raises:
        UnsupportedError: an input that has no sample dimension in front.
    """
    weight = calls[0].layer.weight
    assert isinstance(weight, Tensor)
    for call in calls:
        _check_samples(call, samples)
    groups = getattr(calls[0].layer, "groups", 1)
    flipped = is_turned(calls[0].layer)  # [inputs, outputs]
    outputs = weight.shape[int(flipped)]
    fan = weight.numel() // outputs
    positions = sum(_positions(call) for call in calls)
    # Multiplications of either form, per sample.
    gram = rows and positions * (groups * fan + outputs) < outputs * fan
    each = groups * fan * positions + outputs * positions  # U and delta
    each += groups * positions**2 + outputs * positions if gram else 2 * outputs * fan
    size = torch.promote_types(weight.dtype, torch.float32).itemsize
    step = max(1, workspace // (size * each))
    for begin in range(0, samples, step):
        part = slice(begin, min(samples, begin + step))
        u = torch.cat([_patches(call, part) for call in calls], -1) if len(calls) > 1 else _patches(calls[0], part)
        d = torch.cat([_deltas(call, part) for call in calls], -1) if len(calls) > 1 else _deltas(calls[0], part)
        if gram:
            yield ((d @ (u.mT @ u)) * d).sum(-1).flatten(1).clamp(min=0)
            continue
        gradient = (d @ u.mT).flatten(1, 2)  # [n, O, K]
        if rows:
            yield gradient.square().sum(-1)
        else:
            yield (gradient.mT if flipped else gradient).square().reshape(-1, *weight.shape)


def _check_samples(call: Call, samples: int) -> None:
    shape, layer = tuple(call.inputs.shape), call.layer
    dims = len(layer.kernel_size) + 2 if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) else 2
    if len(shape) < dims or shape[0] != samples:
        raise UnsupportedError(
            f"{call.name}: its input has shape {shape} where the batch has {samples} samples; gradients of single "
            "samples need them in the first dimension (estimator='hutchinson' does not)"
        )


def _positions(call: Call) -> int:
    assert call.delta is not None
    assert isinstance(call.layer.weight, Tensor)
    return call.delta[0].numel() // call.layer.weight.shape[int(is_turned(call.layer))]


def _deltas(call: Call, part: slice) -> Tensor:
    """Gradients at the outputs, ``[n, groups, O / groups, P]``."""
    assert call.delta is not None
    delta, layer = _wide(call.delta[part]), call.layer
    if isinstance(layer, nn.Linear) or is_turned(layer):
        return delta.reshape(len(delta), -1, delta.shape[-1]).mT.unsqueeze(1)
    assert isinstance(layer.groups, int)
    return delta.reshape(len(delta), layer.groups, delta.shape[1] // layer.groups, -1)


def _patches(call: Call, part: slice) -> Tensor:
    """Inputs that each output position saw, ``[n, groups, K, P]``."""
    x, layer = _wide(call.inputs[part]), call.layer
    if isinstance(layer, nn.Linear) or is_turned(layer):
        return x.reshape(len(x), -1, x.shape[-1]).mT.unsqueeze(1)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    spatial = len(layer.kernel_size)
    for axis, (kernel, stride, spread) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        # [..., positions, ..., taps]: a window as wide as the dilated kernel, of which every spread-th entry counts.
        x = x.unfold(2 + axis, spread * (kernel - 1) + 1, stride)[..., ::spread]
    taps = range(2 + spatial, 2 + 2 * spatial)
    x = x.permute(0, 1, *taps, *range(2, 2 + spatial))
    positions = x.shape[2 + spatial :].numel()
    return x.reshape(len(x), layer.groups, -1, positions)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
