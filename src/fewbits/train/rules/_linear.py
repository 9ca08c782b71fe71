"""A weighted layer as a local rule sees it: what it is given at each position, what it says there, how it is led.

A *position* is one place at which a layer's weights meet its inputs: a sample of a linear layer, a patch of a
convolution. There ``u_c = w_c . x``, one number for each channel c; biases are no part of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight, conv2d_weight
from torch.nn.utils import parametrize

from fewbits.errors import UnsupportedError

Layer = Any
"""One of :data:`LAYERS`, whose attributes differ."""

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def in_full(values: Tensor) -> Tensor:
    """In float32 at least: sums over many positions need its digits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def channels_first(layer: Layer, values: Tensor) -> Tensor:
    """What a layer says, as ``[positions or N, groups, channels of a group, positions]``."""
    values = in_full(values)
    if isinstance(layer, nn.Linear):
        return values.reshape(-1, 1, values.shape[-1], 1)
    batch = values.reshape(-1, *values.shape[-_dimensions(layer) - 1 :])  # a sample of its own has no batch dimension
    return batch.reshape(len(batch), layer.groups, -1, batch[0, 0].numel())


def said(layer: Layer, outputs: Tensor) -> Tensor:
    """``u`` at all positions, from what the layer gave; as :func:`channels_first`."""
    bias = layer.bias
    if bias is not None:
        bias = bias.detach()
        outputs = outputs - (bias if isinstance(layer, nn.Linear) else bias.reshape(-1, *[1] * _dimensions(layer)))
    return channels_first(layer, outputs)


def correlated(layer: Layer, inputs: Tensor, y: Tensor) -> Tensor:
    """``sum over positions m of y_mc x_m``, of the shape of the weight.

    Args:
        inputs: what the layer was given. y: one number for each position and channel, as :func:`channels_first`.
    """
    inputs, weight = in_full(inputs), layer.weight
    if isinstance(layer, nn.Linear):
        return y.reshape(-1, y.shape[2]).T @ inputs.reshape(-1, inputs.shape[-1])
    dimensions = _dimensions(layer)
    inputs = inputs.reshape(-1, *inputs.shape[-dimensions - 1 :])
    padding: Any = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        inputs, padding = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode), (0,) * dimensions
    given = inputs.shape[2:]
    sizes = [
        (given[d] + 2 * padding[d] - layer.dilation[d] * (layer.kernel_size[d] - 1) - 1) // layer.stride[d] + 1
        for d in range(dimensions)
    ]
    gradient = conv1d_weight if dimensions == 1 else conv2d_weight
    found: Tensor = gradient(
        inputs, tuple(weight.shape), y.reshape(len(y), -1, *sizes).contiguous(), layer.stride, padding,
        layer.dilation, layer.groups,
    )  # fmt: skip
    return found


def by_channel(weight: Tensor, values: Tensor) -> Tensor:
    """One value for each output channel, to be multiplied with the weight."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


def norms(weight: Tensor) -> Tensor:
    """``|w_c|`` of each output channel, ``[C]``."""
    return weight.flatten(1).norm(dim=1)


def lead(layer: Layer, attribute: str, direction: Tensor) -> None:
    """Leave a direction in ``.grad``, as if it were the gradient of the tensor that the layer computes with.

    So it goes where that gradient would: through a mask, or straight through a cluster, to the weight behind it.
    """
    with torch.enable_grad():
        tensor = getattr(layer, attribute)
        if tensor.requires_grad:
            tensor.backward(direction.to(tensor.dtype))


def parameter(layer: Layer) -> nn.Parameter | None:
    """What is trained behind a layer's weight: the weight itself, or the background weight of a plan."""
    found: Any = layer._parameters.get("weight")
    if found is None and parametrize.is_parametrized(layer, "weight"):
        found = layer.parametrizations["weight"].original
    return found if isinstance(found, nn.Parameter) else None


def _dimensions(layer: Layer) -> int:
    return 1 if isinstance(layer, nn.Conv1d) else 2


def check_competes(name: str, layer: Layer) -> None:
    """Refuse a layer whose channels have nobody to compete with.

    Raises:
        UnsupportedError: every channel sees other inputs (depthwise), or there is only one.
    """
    of_a_group = layer.weight.shape[0] // getattr(layer, "groups", 1)
    if of_a_group < 2:
        raise UnsupportedError(
            f"{name}: each of its channels sees other inputs, so none competes with another; a competing rule cannot "
            "train it: freeze it (requires_grad_(False)), or take backprop"
        )
