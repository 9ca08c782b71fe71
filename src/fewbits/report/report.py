"""What a compression did, as plain data: everything the tables, pictures and JSON files are made of."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from fewbits.plan import Affine, Clustered, Masked, Plan

LARGE = 32_000_000  # bytes; zstd's highest levels pass some 0.2 MB a second


@dataclass(frozen=True)
class TensorRow:
    """One clustered or pruned tensor.

    Attributes:
        bits: bit width of its grid; of a pruned tensor, bits of each number that is left.
        zeros: share of weights in the zero cluster or pruned, 0 to 1.
        bytes: size of its sections in the file.
        entropy: zero-order entropy of its levels, bits per weight; of a pruned tensor, that of its mask and the bits of
            the numbers that are left.
        step: step size of a uniform grid, else ``None``.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    bits: int
    zeros: float
    bytes: int
    entropy: float
    step: float | None = None


@dataclass(frozen=True)
class Round:
    """State of the search after some training steps.

    Attributes:
        steps: optimizer steps done. lam: strength of the entropy term. bytes: size of the file as of now.
        zeros: share of clustered and pruned weights that are zero. accuracy: percent on validation data, if evaluated.
    """

    steps: int
    lam: float
    bytes: int
    zeros: float
    accuracy: float | None = None


@dataclass(frozen=True)
class Try:
    """A candidate of the final search, made without further training.

    Attributes:
        what: where it comes from: ``settled`` (the end of the training), ``filled`` (weights moved until the target is
            reached), ``round`` (the best of a round), ``smaller`` or ``larger`` (another lambda).
        lam: strength of the entropy term. bytes: size of the file. accuracy: percent on validation data, if evaluated.
        kept: whether this is the file that was written.
    """

    what: str
    lam: float
    bytes: int
    accuracy: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class Rehearsal:
    """A short training to a size with some bits, before they were chosen.

    Attributes:
        bytes: size of its file. accuracy: percent on validation data. kept: whether it kept the budget.
    """

    bits: int
    bytes: int
    accuracy: float
    kept: bool


@dataclass(frozen=True)
class Report:
    """A compression, from the float network to the file that decodes.

    Attributes:
        file_bytes: size of the ``.few`` file, header and checksums included.
        float_bytes: the same tensors as float32: all parameters and normalisation statistics, 4 bytes each.
        floats_bytes: share of the file that is not clustered or pruned weights: floats, header, checksums.
        parameters: trainable numbers of the whole network.
        macs, macs_left: multiply-accumulate operations for one sample, with every weight and with those that are not
            zero; ``None`` where they were not counted.
        others: sizes of the same network under general-purpose compressors, by name.
        accuracy_before, accuracy_after: percent on the data named in ``split``; ``None`` when not evaluated.
        identical: whether the decoded file gives bit-equal outputs; ``None`` before the check.
        target, max_drop, met: the budget that was asked for, and whether the result keeps it.
        history: the controller's path, round by round. search: the candidates of the final search. rehearsals: what
            bits were chosen by, if the recipe left them open.
    """

    model: str
    data: str
    method: str
    tensors: tuple[TensorRow, ...]
    file_bytes: int
    float_bytes: int
    floats_bytes: int
    others: dict[str, int]
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    split: str = "validation"
    identical: bool | None = None
    target: int | None = None
    max_drop: float | None = None
    met: bool | None = None
    seed: int = 0
    steps: int = 0
    seconds: float = 0.0
    history: tuple[Round, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    macs: int | None = None
    macs_left: int | None = None
    search: tuple[Try, ...] = ()
    rehearsals: tuple[Rehearsal, ...] = ()

    @property
    def ratio(self) -> float:
        """Float bytes over bytes of the file."""
        return self.float_bytes / self.file_bytes

    @property
    def weights(self) -> int:
        """Number of clustered and pruned weights."""
        return sum(row.weights for row in self.tensors)

    @property
    def zeros(self) -> float:
        """Share of the clustered and pruned weights that are zero, 0 to 1."""
        return sum(row.zeros * row.weights for row in self.tensors) / max(1, self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole file per clustered or pruned weight."""
        return 8 * self.file_bytes / max(1, self.weights)

    @property
    def drop(self) -> float | None:
        """Points of accuracy lost."""
        if self.accuracy_before is None or self.accuracy_after is None:
            return None
        return self.accuracy_before - self.accuracy_after

    def updated(self, **changes: Any) -> Report:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, derived figures included."""
        plain = dataclasses.asdict(self)
        derived = ("ratio", "weights", "zeros", "bits_per_weight", "drop")
        return plain | {name: getattr(self, name) for name in derived}

    def row(self) -> dict[str, Any]:
        """The figures as a row of a file of results, which ``fewbits report`` draws."""
        return {
            "model": self.model,
            "data": self.data,
            "method": self.method,
            "seed": self.seed,
            "split": self.split,
            "accuracy": self.accuracy_after,
            "baseline_accuracy": self.accuracy_before,
            "bytes": self.file_bytes,
            "float_bytes": self.float_bytes,
            "ratio": self.ratio,
            "sparsity": 100 * self.zeros,
            "seconds": self.seconds,
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report that :meth:`to_json` wrote."""
        values = json.loads(text)
        known = {f.name for f in dataclasses.fields(Report)}
        values = {name: value for name, value in values.items() if name in known}
        rows = values["tensors"]
        values["tensors"] = tuple(TensorRow(**row | {"shape": tuple(row["shape"])}) for row in rows)
        values["history"] = tuple(Round(**r) for r in values["history"])
        values["search"] = tuple(Try(**t) for t in values.get("search", ()))
        values["rehearsals"] = tuple(Rehearsal(**r) for r in values.get("rehearsals", ()))
        return Report(**values)

    def __str__(self) -> str:
        from fewbits.report.table import text

        return text(self)


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


def float_bytes(tensors: dict[str, Tensor]) -> int:
    """Size of the tensors as float32."""
    return 4 * sum(t.numel() for t in tensors.values())


def general_purpose(original: dict[str, Tensor], plan: Plan) -> dict[str, int]:
    """Sizes under gzip -9 and zstd: of the float32 network, and of the compressed one without a format of its own.

    zstd takes its level 19, and 9 for more than 32 MB, where 19 takes minutes; the names say which.

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
            parts.append(kept.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    rest = b"".join(parts)
    jobs = {}
    with ThreadPoolExecutor() as pool:  # both libraries let other threads run
        for label, payload in (("float32", floats), ("int8" if plan.clustered or plan.affine else "pruned", rest)):
            level = 19 if len(payload) <= LARGE else 9
            jobs[f"gzip -9, {label}"] = pool.submit(gzip.compress, payload, 9, mtime=0)
            jobs[f"zstd -{level}, {label}"] = pool.submit(zstandard.ZstdCompressor(level=level).compress, payload)
        return {name: len(job.result()) for name, job in jobs.items()}


def human(size: float) -> str:
    """``12.3 KB``: decimal units, three or four significant digits."""
    if size < 1000:
        return f"{size:.0f} B"
    power = min(3, int(math.log10(size) // 3))
    return f"{size / 1000**power:.4g} {('B', 'KB', 'MB', 'GB')[power]}"
