"""What of a plan's entry stands in the directory, and the array that its section is coded from."""

from __future__ import annotations

import struct
from dataclasses import replace
from math import isfinite

import numpy as np
import torch

from fewbits.codec import dense
from fewbits.codec.coder import Array
from fewbits.codec.directory import CONSTANT, OWN, SHARED, Record, overflows
from fewbits.errors import NonFiniteError, RecipeError
from fewbits.plan import Clustered, Dense, Entry

SHARED_LIMIT = 4096  # dense tensors of fewer elements share a section


def record_of(name: str, entry: Entry) -> tuple[Record, Array]:
    """The record, and the int16 levels or the bytes [numel, itemsize] of the numbers.

    Raises:
        NonFiniteError, RecipeError: numbers that no file holds, see :func:`fewbits.codec.encode`.
    """
    return _clustered(name, entry) if isinstance(entry, Clustered) else _dense(name, entry)


def _clustered(name: str, entry: Clustered) -> tuple[Record, Array]:
    levels = entry.levels.detach().cpu().contiguous().numpy()
    step, codebook = entry.step, entry.codebook
    if step is not None:
        step = _float32(name, step, "step")
        if step <= 0:
            raise RecipeError(f"tensor {name!r} has the step {entry.step}, which is not positive in float32")
        if overflows(step, entry.bits):
            raise NonFiniteError(f"tensor {name!r} has the step {step}, whose multiples are beyond float32")
    if codebook is not None:
        codebook = tuple(_float32(name, value, "codebook value") for value in codebook)
        if not 1 <= len(codebook) <= 2**entry.bits:
            raise RecipeError(f"tensor {name!r} has {len(codebook)} codebook values at {entry.bits} bits")
        if not -32768 <= entry.lowest <= 32768 - len(codebook):
            raise RecipeError(f"tensor {name!r} has a codebook that starts at the impossible level {entry.lowest}")
    lowest = entry.lowest if codebook is not None else 0
    record = Record(name, entry.shape, OWN, None, entry.bits, step, codebook, lowest)
    first, last = record.span
    if not levels.size:
        return replace(record, storage=CONSTANT), levels
    least, most = int(levels.min()), int(levels.max())
    if not (first <= least and most <= last):
        raise RecipeError(
            f"tensor {name!r} has levels {least}..{most}, outside its {entry.bits}-bit grid {first}..{last}"
        )
    if least == most:
        return replace(record, storage=CONSTANT, constant=struct.pack("<h", least)), levels
    return record, levels


def _dense(name: str, entry: Dense) -> tuple[Record, Array]:
    tensor = entry.data
    if tensor.dtype not in dense.DTYPES or tensor.layout != torch.strided:
        raise RecipeError(f"tensor {name!r} has the type {tensor.dtype} ({tensor.layout}), which no file holds")
    if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(f"tensor {name!r} holds NaN or infinity")
    rows = dense.to_bytes(tensor)
    storage = SHARED if tensor.numel() < SHARED_LIMIT else OWN
    return _with_storage(Record(name, entry.shape, storage, tensor.dtype), rows), rows


def _with_storage(record: Record, rows: Array) -> Record:
    """The record of a tensor with these element bytes: marked constant where all elements are the same."""
    if not bool((rows == rows[:1]).all()):
        return record
    return replace(record, storage=CONSTANT, constant=rows[:1].tobytes())


def _float32(name: str, value: float, what: str) -> float:
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if not isfinite(rounded):
        raise NonFiniteError(f"tensor {name!r} has a {what} that is not finite in float32: {value}")
    return rounded
