"""Products of matrices: layers, tables, and those of two activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewbits.int8.affine_grid import LEVELS
from fewbits.int8.alone.mode import Alone, OnGrid, on_grid, real, tagged
from fewbits.int8.alone.table import ahead, carried, levels_of, of


@of("matmul rmatmul bmm mm")
def matmul(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Of two activations, or with a constant on the right."""
    a, b = args if func.__name__.strip("_") != "rmatmul" else (args[1], args[0])
    if on_grid(b) is None:
        return _weighted(mode, a, b.transpose(-2, -1), None, lambda: torch.matmul(a, b))
    if on_grid(a) is None:
        raise mode.unsupported("a product with a constant on its left")
    if min(a.dim(), b.dim()) < 2:
        raise mode.unsupported("a product with a vector")
    a, b = mode.eight(a, "left"), mode.eight(b, "right")
    mode.bounded(a.shape[-1] * 255 * 255)
    return mode.computed(
        lambda: torch.matmul(a, b),
        lambda: OnGrid(mode.tape.matmul(levels_of(a), levels_of(b)), carried(a).scale * carried(b).scale, False),
    )


@of("baddbmm")
def matmul_plus(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A product of matrices, and a sum."""
    if kwargs.keys() - {"out"} and (kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1):
        raise mode.unsupported("baddbmm with factors")
    with mode:
        found: Tensor = torch.bmm(args[1], args[2]) + args[0]
    return found


@of("linear")
def linear(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A linear layer."""
    x, weight, bias = ahead(args, kwargs, "input weight bias", None, None, None)
    if on_grid(weight) is not None or on_grid(bias) is not None:
        raise mode.unsupported("a layer with a computed weight")
    return _weighted(mode, x, weight, bias, lambda: torch.nn.functional.linear(x, weight, bias))


def _weighted(mode: Alone, x: Tensor, weight: Tensor, bias: Tensor | None, soft: Callable[[], Tensor]) -> Tensor:
    if weight.dim() != 2:
        raise mode.unsupported("a product with a constant that is no matrix")
    x = mode.eight(x, "layer")
    mode.unmasked(carried(x))
    if mode.measuring:
        return mode.place("layer", soft, [(OnGrid(None), real())])
    levels, scales = mode.grids.weight(mode.net, weight)
    mode.bounded(weight.shape[1] * 255 * 127)
    sums = OnGrid(mode.tape.matmul(levels_of(x), levels.t()), 1.0, False)
    return mode.place("layer", soft, [(sums, real(carried(x).scale, scales))], bias)


@of("embedding")
def lookup(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Rows of a table, which is on the grid of its place."""
    ids, table = ahead(args, kwargs, "input weight", None, None)
    quantized, scale, zero, name = mode.on_place("embedding", lambda: func(*args, **kwargs))
    if mode.measuring:
        assert quantized is not None
        return tagged(quantized, OnGrid(None))
    rows = (table.detach().double() / scale).round().clamp(-zero, LEVELS - zero).to(torch.int64)
    levels = mode.tape.lookup(mode.read(ids), rows)
    mode.tape.named(levels, name, scale, zero)
    return mode.valued(quantized, OnGrid(levels, scale))


@of("conv2d")
def conv2d(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A convolution of images, without groups."""
    x, weight, bias, stride, padding, dilation, groups = ahead(
        args, kwargs, "input weight bias stride padding dilation groups", None, None, None, 1, 0, 1, 1
    )
    if groups != 1 or isinstance(padding, str) or x.dim() != 4:
        raise mode.unsupported("a convolution with groups, or padded by a word,")
    x = mode.eight(x, "layer")
    soft = lambda: func(x, weight, bias, stride, padding, dilation, groups)  # noqa: E731
    if mode.measuring:
        return mode.place("layer", soft, [(OnGrid(None), real())])
    levels, scales = mode.grids.weight(mode.net, weight)
    mode.bounded(weight[0].numel() * 255 * 127)
    rows = mode.tape.windows(levels_of(x), weight.shape[2:], dilation, padding, stride)
    sums = mode.tape.matmul(rows, levels.flatten(1).t())
    high, wide = torch.empty(x.shape, device="meta"), torch.empty(weight.shape, device="meta")
    shape = func(high, wide, None, stride, padding, dilation, groups).shape
    image = mode.tape.take([sums], lambda numbers: numbers.transpose(1, 2).reshape(len(numbers), *shape[1:]))[0]
    reals, offset = real(carried(x).scale, scales)[:, None, None], None if bias is None else bias[:, None, None]
    return mode.place("layer", soft, [(OnGrid(image, 1.0, False), reals)], offset)
