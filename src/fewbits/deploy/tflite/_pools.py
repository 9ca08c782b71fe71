"""Pools, means, sums and activation functions in a ``.tflite`` file."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from fewbits.deploy.tflite._graph import RELU6, Lowering, Value, activation_of, lowers
from fewbits.deploy.tflite._layers import UNPADDED, around, is_same, pad, pair, reshaped


@lowers(nn.MaxPool2d, F.max_pool2d, torch.max_pool2d, nn.AvgPool2d, F.avg_pool2d)
def pool(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    value = lowering.image(node, *given)
    average = isinstance(module, nn.AvgPool2d) or node.target is F.avg_pool2d

    def asked(name: str, place: int, default: Any) -> Any:
        return getattr(module, name, default) if module is not None else lowering.argument(node, name, place, default)

    kernel = pair(asked("kernel_size", 1, None))
    stride, (height, width) = pair(asked("stride", 2, None) or kernel), pair(asked("padding", 3, 0))
    if asked("ceil_mode", 4 if average else 5, False):
        raise lowering.refused(node, "rounds its size up (ceil_mode)")
    if asked("divisor_override", 6, None) if average else pair(asked("dilation", 4, 1)) != (1, 1):
        raise lowering.refused(node, "has a divisor or a dilation of its own")
    padding = (height, height), (width, width)
    counted = average and bool(asked("count_include_pad", 5, True))
    same = not counted and is_same(value, padding, kernel, stride)
    if padding != UNPADDED and not same:
        if average and not counted:
            raise lowering.refused(node, "leaves its padding out of the mean")
        value = pad(lowering, node, value, around(padding), lowest=not average)
    _pool(lowering, node, value, lowering.seen[node].shape, kernel, stride, same=same, average=average)


def _pool(
    lowering: Lowering,
    node: fx.Node,
    value: Value,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    *,
    same: bool = False,
    average: bool = False,
) -> None:
    """TFLite's pools have the same grid on both sides, and the quantizer behind a mean is left out.

    Where means are on a much finer grid than what they are of, they are a depthwise convolution with ones.
    """
    s = lowering.file.schema
    if average and not same and 4 * (grid := lowering.grid(node)).scale < 3 * value.scale:
        ones = s.DepthwiseConv2DOptionsT()
        ones.padding, ones.depthMultiplier, ones.fusedActivationFunction = s.Padding.VALID, 1, grid.activation
        (ones.strideH, ones.strideW), ones.dilationHFactor, ones.dilationWFactor = stride, 1, 1
        scales = np.full(shape[1], 1 / (kernel[0] * kernel[1]), np.float32)
        weight = lowering.file.constant(f"{node.name}.ones", np.ones((1, *kernel, shape[1]), np.int8), scales, 3)
        units = scales.astype(np.float64) * value.scale
        bias = lowering.file.constant(f"{node.name}.bias", np.zeros(shape[1], np.int32), units)
        made = lowering.give(node, grid, shape)
        lowering.file.operation("DEPTHWISE_CONV_2D", [value.tensor, weight, bias], [made.tensor], 3, ones)
        return
    options = s.Pool2DOptionsT()
    options.padding = s.Padding.SAME if same else s.Padding.VALID
    (options.strideH, options.strideW), (options.filterHeight, options.filterWidth) = stride, kernel
    made = lowering.moved(node, value, shape, final=average)
    name = "AVERAGE_POOL_2D" if average else "MAX_POOL_2D"
    lowering.file.operation(name, [value.tensor], [made.tensor], 2, options)


@lowers(nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
def adaptive(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    value = lowering.image(node, *given)
    shape, before = lowering.seen[node].shape, value.shape
    if shape[2:] == (1, 1):
        _mean(lowering, node, value, (2, 3), keep=True)
        return
    kernel = before[2] // shape[2], before[3] // shape[3]
    if (kernel[0] * shape[2], kernel[1] * shape[3]) != before[2:]:
        raise lowering.refused(node, "takes means over places of different sizes")
    _pool(lowering, node, value, shape, kernel, kernel, average=True)


@lowers(torch.mean, "mean")
def mean(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    (value,) = given
    dims = lowering.argument(node, "dim", 1, None)
    axes = tuple(sorted(d % len(value.shape) for d in ((dims,) if isinstance(dims, int) else dims or ())))
    if axes != (2, 3) or len(value.shape) != 4:
        raise lowering.refused(node, "takes a mean over something else than height and width")
    _mean(lowering, node, value, axes, keep=bool(lowering.argument(node, "keepdim", 2, False)))


def _mean(lowering: Lowering, node: fx.Node, value: Value, axes: tuple[int, ...], *, keep: bool) -> None:
    grid = lowering.grid(node, activation=False)
    made = lowering.give(node, grid, (*value.shape[:2], 1, 1))
    options = lowering.file.schema.ReducerOptionsT()
    options.keepDims = True  # else kernels compute in floats
    inputs = [value.tensor, lowering.numbers("height.width", [axis - 1 for axis in axes])]
    lowering.file.operation("MEAN", inputs, [made.tensor], 2, options)
    if not keep:
        flat = lowering.give(node, grid, value.shape[:2])
        reshaped(lowering, f"{node.name}.shape", made.tensor, flat.tensor, flat.shape)


@lowers(operator.add, operator.iadd, torch.add, "add", "add_")
def add(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    first, second = given * 2 if len(given) == 1 else given  # of a value and itself
    if not all(isinstance(part, fx.Node) for part in node.args) or len(node.args) != 2 or node.kwargs:
        raise lowering.refused(node, "adds a number, or a multiple")
    if (first.shape, first.flat) != (second.shape, second.flat):
        raise lowering.refused(node, f"adds values of the shapes {first.shape} and {second.shape}")
    grid = lowering.grid(node)
    made = lowering.give(node, grid, first.shape, first.flat)
    options = lowering.file.schema.AddOptionsT()
    options.fusedActivationFunction, options.potScaleInt16 = grid.activation, False
    lowering.file.operation("ADD", [first.tensor, second.tensor], [made.tensor], 2, options)


@lowers(nn.ReLU, nn.ReLU6, nn.Hardtanh, F.relu, F.relu6, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
def alone(lowering: Lowering, node: fx.Node, module: Any, given: tuple[Value, ...]) -> None:
    """An activation function that no operation did on the way."""
    (value,) = given
    code = activation_of(node, module)
    if code is None:
        raise lowering.refused(node, "has bounds that are not 0 and 6")
    grid = lowering.grid(node, activation=False)
    made = lowering.give(node, grid, value.shape, value.flat)
    lowering.file.operation("RELU6" if code == RELU6 else "RELU", [value.tensor], [made.tensor], 2)
