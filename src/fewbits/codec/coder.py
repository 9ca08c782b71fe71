"""The bit coder behind one name: the C extension where it was built, else the plain-Python reference.

A :class:`Coder` is the pair ``(encode, decode)`` over an integer array; every section of a file names its
coder by number, so that a new one can join without a new container.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import FormatError

Array = NDArray[Any]


def _load() -> tuple[ModuleType, str]:
    try:
        from fewbits.codec import _coder
    except ImportError:
        from fewbits.codec import reference

        return reference, "python"
    return _coder, "c"


bits, _BACKEND = _load()


def backend() -> str:
    """``"c"`` with the compiled coder, ``"python"`` with the slow one; both write the same bytes."""
    return _BACKEND


@dataclass(frozen=True)
class Coder:
    """A coder of integer levels.

    Attributes:
        number: how a file names it.
        encode: ``(levels, lowest, highest) -> bytes`` for a non-empty int16 array with all levels in
            ``[lowest, highest]`` and ``lowest <= 0 <= highest``.
        decode: ``(data, shape, lowest, highest) -> levels``; FormatError for an invalid stream.
    """

    number: int
    encode: Callable[[Array, int, int], bytes]
    decode: Callable[[bytes, tuple[int, ...], int, int], Array]


def layout(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``(rows, columns, kernel)`` of a non-empty weight: a row per filter, ``kernel`` numbers per channel."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, prod(shape) // rows, prod(shape[2:])


def _encode(levels: Array, lowest: int, highest: int) -> bytes:
    flat = np.ascontiguousarray(levels, dtype=np.int16).reshape(-1)
    coded: bytes = bits.levels_encode(flat.data, *layout(levels.shape), lowest, highest)
    return coded


def _decode(data: bytes, shape: tuple[int, ...], lowest: int, highest: int) -> Array:
    levels = np.zeros(prod(shape), np.int16)
    try:
        bits.levels_decode(data, levels.data, *layout(shape), lowest, highest)
    except ValueError as error:
        raise FormatError(f"the file holds {error}") from None
    return levels.reshape(shape)


MIXING = Coder(1, _encode, _decode)
CODERS = {coder.number: coder for coder in (MIXING,)}
