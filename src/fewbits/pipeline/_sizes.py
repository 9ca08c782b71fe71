"""How large the file would be for any lambda: told without coding, or really coded."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits import codec
from fewbits.assign import Sample, State, sample
from fewbits.pipeline._candidates import Candidates
from fewbits.plan import Affine, Clustered, Compressed, Dense, Plan
from fewbits.train.hold import QATCallback

MOST = 1 << 16
"""Weights that an estimate looks at, about. Smaller networks are looked at as a whole."""

ALWAYS = 1 << 19
"""Weights of a network at most, whose file is coded at every round."""

CHUNK = 1 << 20

ALONE = 8.0
"""Bytes that a section costs beside the entropy of its levels."""


@dataclass(frozen=True)
class Coded:
    """A file that was really coded, as what estimates are relative to, also in later rounds.

    Attributes:
        rest: its bytes without the sections of compressed tensors. entropy: of all of these, estimated bytes.
        ratio: by tensor, bytes over estimated bytes.
    """

    rest: int
    entropy: float
    ratio: Mapping[str, float]


class Sizes:
    """Bytes of the file for any lambda, with the weights as they are at a round.

    Called, it assigns all weights and codes the file. :meth:`about` assigns some rows of every weight, and takes the
    entropy of their levels times what coder and entropy had to each other in the nearest file that was coded.

    Args:
        base: what would be written now; everything but the compressed tensors of other lambdas' files is taken from it.
        data: its file, if it was coded.
        files: without it, what earlier rounds coded.

    Attributes:
        files: what estimates are relative to: this round's files, else those of earlier ones.
        costly: whether a file takes as long as a training step.
    """

    def __init__(
        self,
        candidates: Candidates,
        qat: QATCallback,
        base: Plan,
        data: bytes | None = None,
        files: Sequence[Coded] = (),
    ) -> None:
        self.candidates, self.qat, self.base, self.data = candidates, qat, base, data
        self.files = list(files)
        self.costly = sum(weight.numel() for weight in qat.weights.values()) > ALWAYS
        self.known: dict[float, int] = {}
        self._last: tuple[float, Plan, State] | None = None
        self._asked = False
        self._entropies: dict[float, dict[str, float]] = {}
        self._part: Sample | None = None

    def __call__(self, lam: float) -> int:
        if lam not in self.known:
            self._last = None  # first, as the next needs its memory
            self._last = lam, *self.qat.plan_at(lam)
            data = self.candidates.encoded(self.base.updated(self._last[1]))
            self.known[lam] = len(data)
            if self._asked:  # else nobody has asked for an estimate yet
                self.files.append(self._relative_to(data, lam))
        return self.known[lam]

    def assigned(self, lam: float) -> tuple[Plan, State]:
        """The assignment under a lambda: not made again if its file was the last to be coded."""
        last, self._last = self._last, None  # it goes before another comes
        if last is not None and last[0] == lam:
            return last[1:]
        del last
        return self.qat.plan_at(lam)

    @property
    def size(self) -> int:
        """Bytes of what would be written now: of its file, or about."""
        return self.about(self.qat.lam) if self.data is None else len(self.data)

    def code(self) -> bytes:
        """Code what would be written now."""
        self.data, self.files, self._asked = self.candidates.encoded(self.base), [], False
        return self.data

    def about(self, lam: float) -> int:
        """The size to a few percent, and the nearer to a file that was coded, the better."""
        if not self._asked and self.data is not None:
            self.files = [self._relative_to(self.data, self.qat.lam)]
        self._asked = True
        if lam in self.known:
            return self.known[lam]
        found = self._entropy(lam)
        total = sum(found.values())
        if not self.files:
            return self._rest + round(total)
        near = min(self.files, key=lambda coded: abs(math.log((coded.entropy + 1) / (total + 1))))
        return round(near.rest + sum(near.ratio[name] * size for name, size in found.items()))

    @property
    def _rest(self) -> int:
        """Bytes of all but the compressed tensors, if nothing made them smaller."""
        return sum(e.data.numel() * e.data.element_size() for e in self.base.values() if isinstance(e, Dense))

    def _relative_to(self, data: bytes, lam: float) -> Coded:
        estimated = self._entropy(lam)
        total = sum(estimated.values())
        coded = {
            tensor.name: tensor.coded_bytes
            for tensor in codec.inspect(data, self.candidates.base).tensors
            if tensor.name in estimated
        }
        mean = sum(coded.values()) / total if total else 1.0
        ratio = {n: coded[n] / size if size and coded[n] else mean or 1.0 for n, size in estimated.items()}
        return Coded(len(data) - sum(coded.values()), total, ratio)

    def _entropy(self, lam: float) -> dict[str, float]:
        """Estimated bytes by tensor, as if a coder knew how often there is each level, and nothing else."""
        if lam not in self._entropies:
            if self._part is None:
                whole = self.candidates.recipe.prune is not None  # a share of all weights, which no sample has
                self._part = sample(self.qat.weights, self.qat.state, sys.maxsize if whole else MOST)
            part = self._part
            plan, _ = self.qat.assigner_at(lam, self.qat.share).update(part.weights, None, part.state)
            self._entropies[lam] = {n: _bytes(entry) / part.shares[n] for n, entry in plan.compressed.items()}
        return self._entropies[lam]


def _bytes(entry: Compressed) -> float:
    """Of a section, estimated."""
    if isinstance(entry, Clustered | Affine):
        return _entropy_bytes(entry.levels)
    return _entropy_bytes(entry.mask) + float(entry.mask.sum()) * entry.data.element_size()


def _entropy_bytes(levels: Tensor) -> float:
    flat = levels.reshape(-1)
    if not flat.numel():
        return 0.0
    lowest, highest = (int(end) for end in torch.aminmax(flat.view(torch.int8) if flat.dtype == torch.bool else flat))
    if lowest == highest:  # a constant stands in the directory
        return 0.0
    total = torch.zeros(highest - lowest + 1, dtype=torch.int64, device=flat.device)
    for some in flat.split(CHUNK):  # counting takes int64
        total += torch.bincount(some.int() - lowest, minlength=len(total))
    counts = total[total > 0].double()
    return ALONE + float((counts * (flat.numel() / counts).log2()).sum()) / 8
