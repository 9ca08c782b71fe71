"""What of a plan's entry stands in the directory, and the array that its section is coded from."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from fewbits.channel_masks import ChannelMasks
from fewbits.codec import _dense as dense
from fewbits.codec._record import CONSTANT, OWN, SHARED, SURVIVORS, Record, overflows
from fewbits.codec.coder import Array
from fewbits.errors import AS_REAL, NonFiniteError, RecipeError
from fewbits.plan import Affine, Clustered, Dense, Entry, Masked

SHARED_LIMIT = 4096  # dense tensors of fewer elements share a section


@dataclass(frozen=True)
class Parts:
    """What the sections of a tensor are coded from: int16 levels (or a mask) and bytes [count, itemsize] of numbers."""

    record: Record
    levels: Array | None = None
    numbers: Array | None = None


def record_of(name: str, entry: Entry) -> Parts:
    """The record of an entry, and what its sections hold.

    Raises:
        NonFiniteError, RecipeError: numbers that no file holds, see :func:`fewbits.codec.encode`.
    """
    if isinstance(entry, Clustered):
        record, levels = _clustered(name, entry)
        return Parts(record, levels=levels)
    if isinstance(entry, Masked):
        return _masked(name, entry)
    if isinstance(entry, Affine):
        return _affine(name, entry)
    record, numbers = _dense(name, entry)
    return Parts(record, numbers=numbers)


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
        way = AS_REAL if tensor.is_complex() else "convert it first (Tensor.to, Tensor.to_dense)"
        raise RecipeError(f"tensor {name!r} has the type {tensor.dtype} ({tensor.layout}), which no file holds; {way}")
    if tensor.dtype.is_floating_point and bool(torch.isnan(tensor).any()):
        raise NonFiniteError(f"tensor {name!r} holds NaN")
    rows = dense.to_bytes(tensor)
    storage = SHARED if tensor.numel() < SHARED_LIMIT else OWN
    return _with_storage(Record(name, entry.shape, storage, tensor.dtype), rows), rows


def _masked(name: str, entry: Masked) -> Parts:
    if entry.data.dtype not in SURVIVORS:
        raise RecipeError(f"masked tensor {name!r} has the type {entry.data.dtype}, which no file holds")
    mask = entry.mask.detach().cpu()
    numbers = entry.data.detach().cpu()[mask]  # in the order of the elements
    if not bool(torch.isfinite(numbers).all()):
        raise NonFiniteError(f"tensor {name!r} holds NaN or infinity")
    survivors = numbers.numel()
    storage = SHARED if 0 < survivors < SHARED_LIMIT else OWN
    record = Record(name, entry.shape, storage, numbers.dtype, survivors=survivors)
    return Parts(record, mask.contiguous().numpy().astype(np.int16), dense.to_bytes(numbers))


def _affine(name: str, entry: Affine) -> Parts:
    levels = entry.levels.detach().cpu().contiguous().numpy().astype(np.int16)
    scales = entry.scales.detach().cpu()
    if not levels.size:
        raise RecipeError(f"affine tensor {name!r} is empty")
    if not bool(torch.isfinite(scales).all()):
        raise NonFiniteError(f"tensor {name!r} holds NaN or infinity")
    storage = SHARED if scales.numel() < SHARED_LIMIT else OWN
    record = Record(name, entry.shape, storage, torch.float32, entry.bits, axis=entry.axis)
    first, last = record.span
    if not (first <= int(levels.min()) and int(levels.max()) <= last):
        raise RecipeError(f"tensor {name!r} has levels outside its {entry.bits}-bit grid {first}..{last}")
    if not bool((scales > 0).all()):
        raise RecipeError(f"tensor {name!r} has a scale that is not positive")
    return Parts(record, levels, dense.to_bytes(scales))


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


def narrowed(parts: Parts, channels: ChannelMasks) -> Parts:
    """With what is left of a larger network's dimensions; masks that keep everything are left out."""
    masks = tuple(
        None if mask is None or bool(mask.all()) else mask.cpu().numpy()
        for mask in channels.kept.get(parts.record.name, ())
    )
    if not any(mask is not None for mask in masks):
        return parts
    return replace(parts, record=replace(parts.record, kept=masks))


def channels_of(
    records: list[Record], paddings: Mapping[str, tuple[int, int]], aliases: Mapping[str, str]
) -> ChannelMasks | None:
    """The inverse of :func:`narrowed`, over all records and their other names; ``None`` if none is narrowed."""
    tensors: dict[int, Tensor] = {}  # tensors with the same mask share it
    kept: dict[str, tuple[Tensor | None, ...]] = {}
    for record in records:
        if record.kept is not None:
            tensors |= {id(m): torch.from_numpy(m) for m in record.kept if m is not None and id(m) not in tensors}
            kept[record.name] = tuple(None if mask is None else tensors[id(mask)] for mask in record.kept)
    kept |= {other: kept[name] for other, name in aliases.items() if name in kept}
    return ChannelMasks(kept, dict(paddings)) if kept else None
