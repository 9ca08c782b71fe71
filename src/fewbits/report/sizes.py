"""Sizes for a report: of each tensor in the file, and of the same network without fewbits."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from fewbits.plan import Affine, Clustered, Dense, Masked, Plan, unchanged
from fewbits.report.report import RestRow, TensorRow

LARGE = 8_000_000  # bytes; zstd's highest levels pass some 0.2 MB a second, so that 8 MB take 40 seconds


def entropy(levels: Tensor) -> float:
    """Zero-order entropy of integer levels, bits per element: ``-sum p log2 p``."""
    if levels.numel() == 0:
        return 0.0
    _, counts = torch.unique(levels, return_counts=True)
    p = counts.double() / levels.numel()
    return max(0.0, float(-(p * p.log2()).sum()))


def tensor_rows(plan: Plan, section_bytes: dict[str, int]) -> tuple[TensorRow, ...]:
    """One row per clustered, masked or affine entry; ``section_bytes`` are the sizes in the file."""
    rows = []
    for name, entry in plan.compressed.items():
        count = entry.kept.numel()
        left = int(entry.kept.sum()) / count if count else 0.0
        zeros, size = (1 - left if count else 0.0), section_bytes[name]
        if isinstance(entry, Clustered):
            bits, spread, step = entry.bits, entropy(entry.levels), entry.step
        elif isinstance(entry, Affine):
            bits, spread, step = entry.bits, entropy(entry.levels), None
        else:
            bits, step = 8 * entry.data.element_size(), None
            spread = entropy(entry.mask) + left * bits
        rows.append(TensorRow(name, entry.shape, count, bits, zeros, size, spread, step))
    return tuple(rows)


def rest_rows(plan: Plan, section_bytes: dict[str, int], why: Mapping[str, str]) -> tuple[RestRow, ...]:
    """One row per entry that is not compressed; ``why`` are the reasons by name, as far as there are any."""
    found = []
    for name, entry in plan.items():
        if isinstance(entry, Dense):
            same = entry.base is not None and unchanged(entry)
            reason = "is as it is in the base" if same else why.get(name, "")
            found.append(RestRow(name, entry.shape, entry.data.numel(), section_bytes[name], reason))
    return tuple(found)


def kind_of(plan: Plan) -> str:
    """What was done to the compressed weights, in a word."""
    if plan.affine:
        return "quantized"
    return "clustered" if plan.clustered or not plan.compressed else "pruned"


def float_bytes(tensors: dict[str, Tensor]) -> int:
    """Size of the tensors as float32; shared ones are to be given once."""
    return 4 * sum(t.numel() for t in tensors.values())


def general_purpose(original: dict[str, Tensor], plan: Plan) -> dict[str, int]:
    """Sizes under gzip and zstd: of the float32 network, and of the compressed one without a format of its own.

    gzip takes its level 9, and zstd 19; for more than 8 MB 6 and 9, and the names say so. The highest take minutes: of
    20 million levels gzip -9 has 35 s, -6 three, for 7 % more bytes.

    The latter holds levels as int8 (int16 beyond 8 bits), floats as in the plan, zeros included, without any header. It
    is called int8, or ``pruned`` where no tensor has levels.
    """
    jobs = {}
    kind = "int8" if plan.clustered or plan.affine else "pruned"
    sources = {"float32": partial(_floats, original), kind: partial(_written, plan)}
    with ThreadPoolExecutor() as pool:  # both libraries let other threads run
        for label, parts in sources.items():
            size = sum(len(part) for part in parts())
            strength, level = (9, 19) if size <= LARGE else (6, 9)
            packed = zlib.compressobj(strength, wbits=31), zstandard.ZstdCompressor(level=level).compressobj(size=size)
            for name, packer in zip((f"gzip -{strength}", f"zstd -{level}"), packed, strict=True):
                jobs[f"{name}, {label}"] = pool.submit(_packed, parts, packer)
        return {name: job.result() for name, job in jobs.items()}


def _packed(parts: Callable[[], Iterator[bytes]], packer: Any) -> int:
    """Bytes that come out, tensor by tensor: the network is not there as a whole another time."""
    return sum(len(packer.compress(part)) for part in parts()) + len(packer.flush())


def _floats(original: Mapping[str, Tensor]) -> Iterator[bytes]:
    for tensor in original.values():
        yield tensor.detach().cpu().to(torch.float32).contiguous().numpy().tobytes()


def _written(plan: Plan) -> Iterator[bytes]:
    for entry in plan.values():
        if isinstance(entry, Clustered):
            yield entry.levels.cpu().numpy().astype(np.int8 if entry.bits <= 8 else np.int16).tobytes()
        elif isinstance(entry, Affine):
            yield entry.levels.cpu().numpy().tobytes()
            yield entry.scales.cpu().numpy().tobytes()
        else:
            kept = entry.data * entry.mask if isinstance(entry, Masked) else entry.data
            yield kept.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
