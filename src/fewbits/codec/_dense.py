"""Numbers kept as they are: split into byte planes, of which the predictable ones are coded.

The bytes of same rank of all numbers form a plane (all exponents, all high mantissa bytes, ...). Floats are
rotated left by one bit first: the exponent then fills whole bytes, and the sign hides in the lowest plane.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from fewbits.codec.coder import Array, bits
from fewbits.errors import FormatError

NUMBER = 2  # how a file names this coder
DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)
SAMPLE = 8192  # numbers on which the choice of planes is tried


def to_bytes(tensor: Tensor) -> Array:
    """The numbers of a tensor as little-endian bytes, uint8 of shape [numel, itemsize]."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    rows = flat.view(torch.uint8).numpy().reshape(flat.numel(), tensor.dtype.itemsize)
    return rows if sys.byteorder == "little" else rows[:, ::-1]


def from_bytes(rows: Array, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`to_bytes`; FormatError for truth values beyond 1, and for NaN."""
    native = rows if sys.byteorder == "little" else rows[:, ::-1]
    tensor = torch.from_numpy(np.array(native, dtype=np.uint8).reshape(-1))
    if dtype == torch.bool and bool((tensor > 1).any()):
        raise FormatError("the file holds a truth value that is neither 0 nor 1")
    tensor = tensor.view(dtype).reshape(shape)
    if dtype.is_floating_point and bool(torch.isnan(tensor).any()):
        raise FormatError("the file holds NaN")
    return tensor


def encode(rows: Array, dtype: torch.dtype) -> bytes:
    """Section of the numbers ``rows`` (uint8, [count, itemsize]): planes coded, raw planes, coded planes."""
    cut = _planes(rows, dtype)
    width = rows.shape[1]
    sample = cut[:, :SAMPLE]
    coded = min(range(width + 1), key=lambda k: len(_pack(sample, k)))
    return _pack(cut, coded)


def decode(data: bytes, count: int, dtype: torch.dtype) -> Array:
    """The inverse of :func:`encode`, uint8 of shape [count, itemsize]."""
    return rows(planes(data, count, dtype), dtype)


def planes(data: bytes, count: int, dtype: torch.dtype) -> Array:
    """What :func:`encode` cut its numbers into, highest bytes first: uint8 of shape [itemsize, count]."""
    width = dtype.itemsize
    coded = data[0] if data else width + 1
    raw = (width - coded) * count
    if coded > width or len(data) < 1 + raw:
        raise FormatError("the file holds a section of numbers that is too short")
    found = np.zeros((width, count), np.uint8)
    found[coded:] = np.frombuffer(data, np.uint8, raw, 1).reshape(width - coded, count)
    try:
        bits.bytes_decode(data[1 + raw :], found[:coded].reshape(-1).data, count, b"")
    except ValueError as error:
        raise FormatError(f"the file holds {error}") from None
    return found


def _pack(planes: Array, coded: int) -> bytes:
    stream = bits.bytes_encode(planes[:coded].tobytes(), planes.shape[1], b"")
    return bytes([coded]) + planes[coded:].tobytes() + stream


def _unsigned(dtype: torch.dtype, order: str) -> np.dtype[np.generic]:
    return np.dtype(f"{order}u{dtype.itemsize}")


def _planes(rows: Array, dtype: torch.dtype) -> Array:
    """Byte planes, highest first: uint8 of shape [itemsize, count]."""
    numbers = np.ascontiguousarray(rows).view(_unsigned(dtype, "<")).reshape(-1)
    if dtype.is_floating_point:
        numbers = (numbers << 1) | (numbers >> (8 * dtype.itemsize - 1))
    high_first = numbers.astype(_unsigned(dtype, ">")).view(np.uint8)
    return np.ascontiguousarray(high_first.reshape(-1, dtype.itemsize).T)


def rows(planes: Array, dtype: torch.dtype) -> Array:
    """The numbers of these places of all :func:`planes`, as uint8 of shape [count, itemsize]."""
    numbers = np.ascontiguousarray(planes.T).view(_unsigned(dtype, ">")).reshape(-1)
    numbers = numbers.astype(_unsigned(dtype, "<"))
    if dtype.is_floating_point:
        numbers = (numbers >> 1) | (numbers << (8 * dtype.itemsize - 1))
    return numbers.view(np.uint8).reshape(-1, dtype.itemsize)
