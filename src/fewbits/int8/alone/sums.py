"""Sums, products and means."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewbits.int8.alone.mode import Alone, OnGrid, on_grid, real, scaled, tagged
from fewbits.int8.alone.table import ahead, carried, levels_of, of
from fewbits.int8.alone.tape import SUMS, Levels

FAR = -1e4  # what is added to a score below which nothing is left of its share


@of("add radd iadd")
def add(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A sum, of activations or with constants."""
    return _sum(mode, func, args, kwargs, 1)


@of("sub subtract isub")
def subtract(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A difference."""
    return _sum(mode, func, args, kwargs, -1)


@of("rsub")
def subtract_from(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A difference the other way round."""
    return _sum(mode, operator.sub, (args[1], args[0]), {}, -1)


def _sum(mode: Alone, func: Any, args: Any, kwargs: Any, sign: int) -> Tensor:
    a, b, alpha = ahead(args, kwargs, "input other alpha", None, None, 1)
    mask = next((m for x, y in ((a, b), (b, a)) if on_grid(x) is not None and (m := _far(mode, y)) is not None), None)
    if mask is not None and sign == 1:
        return masked(mode, a if on_grid(a) is not None else b, mask)
    terms, offset = [], None
    for value, factor in ((a, 1), (b, sign * alpha)):
        found = on_grid(value)
        if found is not None:
            terms.append((found, real(found.scale * factor)))
        else:
            offset = torch.as_tensor(value, dtype=torch.float64) * factor
    return mode.place("sum", lambda: _plain(func, args, kwargs), terms, offset)


def _plain(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Out of place, whatever was asked for: what is on a grid is not changed."""
    name = func.__name__.strip("_")
    if name.startswith("i") and name in ("iadd", "isub", "imul", "itruediv"):
        return getattr(operator, name[1:])(*args)
    found: Tensor = func(*args, **kwargs)
    return found


def _far(mode: Alone, value: Any) -> Tensor | None:
    """The mask of a constant that adds nothing, or so much that nothing is left."""
    if not isinstance(value, Tensor) or on_grid(value) is not None:
        return None
    if value.dtype == torch.bool or not value.is_floating_point():
        return None
    low = value <= FAR
    if not bool(low.any()):
        return None
    if bool((value[~low] != 0).any()):
        raise mode.unsupported("a mask with other numbers than zero and minus infinity")
    return low


@of("masked_fill")
def fill_mask(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Scores that get no share."""
    x, mask, value = ahead(args, kwargs, "input mask value", None, None, None)
    if on_grid(x) is None or on_grid(mask) is not None or float(value) > FAR:
        raise mode.unsupported("masked_fill with anything but minus infinity")
    return masked(mode, x, mask)


def masked(mode: Alone, x: Tensor, mask: Tensor) -> Tensor:
    """With a mask that a softmax will see."""
    found = carried(x)
    both = mask if found.mask is None else mask | found.mask
    return tagged(x.masked_fill(mask, -math.inf), replace(found, mask=both))


@of("mul multiply rmul imul")
def multiply(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """By a number, a constant or an activation."""
    a, b = ahead(args, kwargs, "input other", None, None)
    x, other = (a, b) if on_grid(a) is not None else (b, a)
    soft = lambda: _plain(func, args, kwargs)  # noqa: E731
    if on_grid(other) is None:
        return _times(mode, x, other, soft)
    return _product(mode, mode.eight(a, "product"), mode.eight(b, "product"), soft)


def _product(mode: Alone, a: Tensor, b: Tensor, soft: Callable[[], Tensor]) -> Tensor:
    mode.unmasked(carried(a), carried(b))
    return mode.computed(
        soft, lambda: OnGrid(mode.tape.product(levels_of(a), levels_of(b)), carried(a).scale * carried(b).scale, False)
    )


@of("div truediv true_divide itruediv divide")
def divide(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """By a number or a constant."""
    a, b = ahead(args, kwargs, "input other", None, None)
    if on_grid(b) is not None or kwargs.get("rounding_mode"):
        raise mode.unsupported("division by what was computed")
    inverse = 1 / b.detach().double() if isinstance(b, Tensor) else 1 / b
    return _times(mode, a, inverse, lambda: _plain(func, args, kwargs))


@of("neg negative")
def negate(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """The other sign."""
    return _times(mode, args[0], -1.0, lambda: func(*args, **kwargs))


def _times(mode: Alone, x: Tensor, other: Any, soft: Callable[[], Tensor]) -> Tensor:
    found = carried(x)
    if isinstance(other, Tensor) and other.numel() > 1:
        return mode.place("product", soft, [(found, real(found.scale, other))])
    number = float(other)
    if number > 0 or mode.measuring:
        return tagged(soft(), scaled(found, number if number > 0 else 1.0))
    if number == 0:
        raise mode.unsupported("a product with zero")
    mode.unmasked(found)
    return mode.computed(
        soft, lambda: replace(found, levels=_negative(mode, x), scale=found.scale * -number), eight=found.eight
    )


def _negative(mode: Alone, x: Tensor) -> Levels:
    return mode.tape.rescale([levels_of(x)], [torch.tensor(-1)], 0, 0, -SUMS, SUMS)


@of("pow rpow")
def power(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Squares."""
    x, exponent = ahead(args, kwargs, "input exponent", None, None)
    if on_grid(x) is None or exponent != 2:
        raise mode.unsupported("a power other than the square")
    x = mode.eight(x, "square")
    return _product(mode, x, x, lambda: func(x, 2))


@of("mean sum")
def average(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Over dimensions."""
    x, dims, keep = ahead(args, kwargs, "input dim keepdim", None, None, False)
    if dims is None:
        raise mode.unsupported(f"a {func.__name__} over all dimensions, samples included,")
    axes = tuple(sorted(d if d < 0 else d - x.dim() for d in ((dims,) if isinstance(dims, int) else dims)))
    return _total(mode, x, axes, keep=bool(keep), mean=func.__name__ == "mean", func=func)


@of("adaptive_avg_pool1d adaptive_avg_pool2d")
def pooled(mode: Alone, func: Any, args: Any, kwargs: Any) -> Tensor:
    """The mean of everything, place by place no more."""
    x, size = ahead(args, kwargs, "input output_size", None, None)
    if any(one not in (1,) for one in ((size,) if isinstance(size, int) else size)):
        raise mode.unsupported("adaptive pooling to more than one place")
    axes = (-1,) if func.__name__.endswith("1d") else (-2, -1)
    return _total(mode, x, axes, keep=True, mean=True, func=torch.mean)


def _total(mode: Alone, x: Tensor, axes: tuple[int, ...], *, keep: bool, mean: bool, func: Any) -> Tensor:
    x = mode.eight(x, "mean")
    count = math.prod(x.shape[axis] for axis in axes)
    mode.bounded(count * 255)
    return mode.computed(
        lambda: func(x, axes, keepdim=keep),
        lambda: OnGrid(
            mode.tape.total(levels_of(x), axes, keep=keep), carried(x).scale / (count if mean else 1), False
        ),
    )
