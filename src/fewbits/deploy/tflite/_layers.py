"""Linear and convolutional layers in a ``.tflite`` file: levels of the plan, biases in the accumulator's unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx, nn

from fewbits.deploy.tflite._graph import Lowering, Value, channels_last, lowers
from fewbits.deploy.tflite._package import Array
from fewbits.errors import UnsupportedError
from fewbits.int8.affine_grid import to_levels, weight_scales
from fewbits.plan import Affine


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Height and width of an argument that may be one number for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def weight_of(lowering: Lowering, path: str, module: Any) -> tuple[Array, Array]:
    """Levels (int8) and scales (float32 [outputs]) of a layer; floats become INT8."""
    entry = lowering.plan.named(f"{path}.weight")
    if isinstance(entry, Affine) and entry.axis == 0:
        return entry.levels.numpy(), entry.scales.numpy()
    weight = module.weight.detach().cpu()
    scales = weight_scales(weight)
    return to_levels(weight, scales).numpy(), scales.numpy()


def bias_of(lowering: Lowering, path: str, module: Any, scale: float, scales: Array) -> int:
    """The bias as int32, in units of input scale times weight scale."""
    units = np.float64(scale) * scales.astype(np.float64)
    values = np.zeros(len(units)) if module.bias is None else module.bias.detach().cpu().double().numpy()
    levels = np.round(values / units)
    if np.abs(levels).max(initial=0) >= 2**31:
        raise UnsupportedError(f"{path}.bias does not fit 32 bits beside its weight's scale: compress the network anew")
    one = bool((units == units[0]).all()) and isinstance(module, nn.Linear)
    return lowering.file.constant(f"{path}.bias", levels.astype(np.int32), units[:1] if one else units)


@lowers(nn.Linear)
def linear(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    (value,) = given
    if len(value.shape) != 2:
        raise lowering.refused(node, f"reads {len(value.shape)} dimensions, and not two")
    path, s = str(node.target), lowering.file.schema
    levels, scales = weight_of(lowering, path, module)
    if value.flat is not None:  # the columns follow the order of what is flattened
        levels = levels.reshape(-1, *value.flat).transpose(0, 2, 3, 1).reshape(len(levels), -1)
    one = bool((scales == scales[0]).all())
    weight = lowering.file.constant(f"{path}.weight", levels, scales[:1] if one else scales)
    bias = bias_of(lowering, path, module, value.scale, scales)
    grid = lowering.grid(node)
    made = lowering.give(node, grid, (1, module.out_features))
    options = s.FullyConnectedOptionsT()
    options.fusedActivationFunction = grid.activation
    lowering.file.operation("FULLY_CONNECTED", [value.tensor, weight, bias], [made.tensor], 4 if one else 12, options)


@lowers(nn.Conv2d)
def conv2d(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    value = lowering.image(node, *given)
    path, s = str(node.target), lowering.file.schema
    deep = module.groups > 1 and module.groups == module.in_channels
    if module.groups > 1 and not deep:
        raise lowering.refused(node, f"has {module.groups} groups of several channels each")
    if module.padding_mode != "zeros":
        raise lowering.refused(node, f"pads with {module.padding_mode}, and not with zeros")
    levels, scales = weight_of(lowering, path, module)
    levels = levels.transpose(1, 2, 3, 0) if deep else levels.transpose(0, 2, 3, 1)
    weight = lowering.file.constant(f"{path}.weight", levels, scales, 3 if deep else 0)
    bias = bias_of(lowering, path, module, value.scale, scales)
    grid = lowering.grid(node)
    stride, dilation, kernel = pair(module.stride), pair(module.dilation), pair(module.kernel_size)
    padding = paddings(module.padding, kernel, dilation)
    same = is_same(value, padding, kernel, stride, dilation)
    if not same and padding != UNPADDED:
        value = pad(lowering, node, value, around(padding))
    made = lowering.give(node, grid, lowering.seen[node].shape)
    options = s.DepthwiseConv2DOptionsT() if deep else s.Conv2DOptionsT()
    if deep:
        options.depthMultiplier = module.out_channels // module.in_channels
    options.padding = s.Padding.SAME if same else s.Padding.VALID
    (options.strideH, options.strideW), options.fusedActivationFunction = stride, grid.activation
    options.dilationHFactor, options.dilationWFactor = dilation
    name = "DEPTHWISE_CONV_2D" if deep else "CONV_2D"
    lowering.file.operation(name, [value.tensor, weight, bias], [made.tensor], 3, options)


Padding = tuple[tuple[int, int], tuple[int, int]]
"""Before and after, of height and width."""

UNPADDED: Padding = ((0, 0), (0, 0))


def paddings(padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> Padding:
    """A convolution's padding, also of ``valid`` and ``same``."""
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    height, width = pair(padding)
    return (height, height), (width, width)


def is_same(value: Value, padding: Padding, kernel: Any, stride: Any, dilation: Any = (1, 1)) -> bool:
    """Whether a padding is the one that TFLite calls SAME."""
    wanted = []
    for size, k, s, d in zip(value.shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        wanted.append((total // 2, total - total // 2))
    return tuple(wanted) == padding


def pad(
    lowering: Lowering, node: fx.Node, value: Value, amounts: Sequence[tuple[int, int]], *, lowest: bool = False
) -> Value:
    """Numbers around a value: zeros, or the lowest level.

    Args:
        amounts: before and after, by torch's dimensions.
    """
    shape = tuple(size + sum(amount) for size, amount in zip(value.shape, amounts, strict=True))
    tensor = lowering.file.activation(f"{node.name}.padded", channels_last(shape), value.scale, value.zero)
    s, inputs = lowering.file.schema, [value.tensor, lowering.numbers(f"{node.name}.paddings", channels_last(amounts))]
    if lowest and value.zero > -128:
        lowest_level = np.array([-128], np.int8)
        fill = lowering.file.constant(f"{node.name}.fill", lowest_level, np.array([value.scale]), zero=value.zero)
        lowering.file.operation("PADV2", [*inputs, fill], [tensor], 2, s.PadV2OptionsT())
    else:
        lowering.file.operation("PAD", inputs, [tensor], 2, s.PadOptionsT())
    return replace(value, tensor=tensor, shape=shape)


def around(padding: Padding) -> tuple[tuple[int, int], ...]:
    """A padding of height and width by all of torch's dimensions."""
    return (0, 0), (0, 0), *padding


def reshaped(lowering: Lowering, name: str, tensor: int, made: int, stored: Sequence[int]) -> None:
    """The same elements in another shape of the file's."""
    options = lowering.file.schema.ReshapeOptionsT()
    options.newShape = list(stored)
    lowering.file.operation("RESHAPE", [tensor, lowering.numbers(name, stored)], [made], 1, options)
