"""Sizes for a report: of each tensor in the file, and of the same network without fewbits."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import zstandard
from torch import Tensor

from fewbits.plan import Affine, Clustered, Dense, Masked, Plan
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
    return tuple(
        RestRow(name, entry.shape, entry.data.numel(), section_bytes[name], why.get(name, ""))
        for name, entry in plan.items()
        if isinstance(entry, Dense)
    )


def kind_of(plan: Plan) -> str:
    """What was done to the compressed weights, in a word."""
    if plan.affine:
        return "quantized"
    return "clustered" if plan.clustered or not plan.compressed else "pruned"


def float_bytes(tensors: dict[str, Tensor]) -> int:
    """Size of the tensors as float32; shared ones are to be given once."""
    return 4 * sum(t.numel() for t in tensors.values())


def general_purpose(original: dict[str, Tensor], plan: Plan) -> dict[str, int]:
    """Sizes under gzip -9 and zstd: of the float32 network, and of the compressed one without a format of its own.

    zstd takes its level 19, and 9 for more than 8 MB, where 19 takes minutes; the names say which.

    The latter holds levels as int8 (int16 beyond 8 bits), floats as in the plan, zeros included, without any header. It
    is called int8, or ``pruned`` where no tensor has levels.
    """
    singles = (t.detach().cpu().to(torch.float32).contiguous() for t in original.values())
    floats = b"".join(t.numpy().tobytes() for t in singles)
    parts = []
    for entry in plan.values():
        if isinstance(entry, Clustered):
            levels = entry.levels.cpu().numpy()
            parts.append(levels.astype(np.int8 if entry.bits <= 8 else np.int16).tobytes())
        elif isinstance(entry, Affine):
            parts += [entry.levels.cpu().numpy().tobytes(), entry.scales.cpu().numpy().tobytes()]
        else:
            kept = entry.data * entry.mask if isinstance(entry, Masked) else entry.data
            parts.append(kept.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    rest = b"".join(parts)
    jobs = {}
    with ThreadPoolExecutor() as pool:  # both libraries let other threads run
        for label, payload in (("float32", floats), ("int8" if plan.clustered or plan.affine else "pruned", rest)):
            level = 19 if len(payload) <= LARGE else 9
            jobs[f"gzip -9, {label}"] = pool.submit(gzip.compress, payload, 9, mtime=0)
            jobs[f"zstd -{level}, {label}"] = pool.submit(zstandard.ZstdCompressor(level=level).compress, payload)
        return {name: len(job.result()) for name, job in jobs.items()}
