"""The operations of a network in integers alone, in NumPy: int64 in, int64 out, sample by sample along the first axis.

A value has the levels of its grid less the zero point. Constants have no axis of samples. What a function says of
shapes is of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fewbits.approximation import Approximation
from fewbits.int8.reference import Whole, rescaled
from fewbits.ops import reference

LOWEST = -(2**40)  # below every sum: what is masked has no share


def rescale(
    *values: Whole, factors: Sequence[Whole], offset: Whole, shift: int, low: int, high: int, dims: int
) -> Whole:
    """To another grid: :func:`fewbits.int8.reference.rescaled`, cut off at its ends."""
    return np.clip(rescaled([aligned(v, dims) for v in values], factors, offset, shift), low, high)


def matmul(a: Whole, *b: Whole, weight: Whole | None = None, dims: int) -> Whole:
    """The product of matrices in the last two dimensions; the second one may be a constant."""
    found: Whole = aligned(a, dims) @ (aligned(b[0], dims) if weight is None else weight)
    return found


def product(a: Whole, b: Whole, *, dims: int) -> Whole:
    """Element by element."""
    return aligned(a, dims) * aligned(b, dims)


def total(a: Whole, *, axes: tuple[int, ...], keep: bool) -> Whole:
    """Sums over dimensions, which are counted from behind."""
    found: Whole = a.sum(axes, keepdims=keep, dtype=np.int64)
    return found


def take(*values: Whole, indices: Whole | None, shape: tuple[int, ...]) -> Whole:
    """Elements of the values, one after the other, by their places; place -1 is a zero. Without places: a new shape."""
    samples = len(values[0])
    flat = [v.reshape(samples, -1) for v in values]
    if indices is None:
        return flat[0].reshape(samples, *shape)
    every = np.concatenate([*flat, np.zeros((samples, 1), np.int64)], 1)
    return every[:, indices.reshape(-1)].reshape(samples, *shape)


def lookup(ids: Whole, *, table: Whole) -> Whole:
    """Rows of a table."""
    return table[ids]


def clip(a: Whole, *, low: int, high: int) -> Whole:
    """ReLU and the like."""
    return np.clip(a, low, high)


def fill(a: Whole, *, mask: Any, value: int, dims: int) -> Whole:
    """A constant where a mask is true."""
    return np.where(mask, np.int64(value), aligned(a, dims))


def approximate(a: Whole, *, approximation: Approximation, epsilon: int) -> Whole:
    """:func:`fewbits.ops.reference`."""
    return reference(approximation, a, epsilon=epsilon)


def aligned(value: Whole, dims: int) -> Whole:
    """With dimensions of one behind that of the samples, as broadcasting wants them."""
    return value.reshape(len(value), *(1,) * (dims - value.ndim + 1), *value.shape[1:])


KERNELS: dict[str, Callable[..., Whole]] = {
    kernel.__name__: kernel for kernel in (rescale, matmul, product, total, take, lookup, clip, fill, approximate)
}
