"""What a cluster costs in bits, and how much a bit is worth in a layer (ECQ, eq. 1).

The cost of putting weight w into cluster c is ``(w - w_c)**2 - lambda(l) * log2 P_c``. P_c is the cluster's
share of the layer in the nearest-neighbour assignment of the float background weights to the grid in use; with steps
that follow the rate, lambda(l) is still that of the range's grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.assign._batched import Query
from fewbits.assign._diagram import Table, boundaries, counting, landmarks
from fewbits.errors import RecipeError, did_you_mean

SCALES = ("min", "max")
SOURCES = ("entropy", "coder")
STEPS = ("range", "rate")
SLOPE = 0.15
"""lambda over the squared step at which a uniform grid has the least squared error for its rate, roughly."""

OUTERMOST = 3.4e38
"""No level of a wider grid lies further out."""


@dataclass(frozen=True)
class Rate:
    """The rate term of the assignment cost, for all layers.

    Attributes:
        lam: the user's global multiplier, 0 or more; 0 is plain nearest neighbour.
        scale: the unit of ``lam`` in a layer, see :meth:`multiplier`.
        sustain: s in 0..1 of ``delta = (n_l / n_max + s) / (1 + s)``: less s spares small layers more.
        zero_floor: raise the zero cluster's probability to at least this and shrink the others in proportion.
            ``None`` is the paper; the released code has 0.5.
        source: ``"entropy"`` is the paper: one P per layer. ``"coder"`` (ours) takes the cost of being zero or
            not, weight by weight, from the adaptive model of the entropy coder, see :mod:`fewbits.assign._code`.
        refresh: updates from one question to that model to the next; it costs as much as coding the layer.
        step_rule: ``"range"`` keeps the steps of the grid; ``"rate"`` (ours) widens them with lambda, see :meth:`wide`.
        min_kept: share of a layer's weights that stay non-zero at least, 0 to 1, see :mod:`fewbits.assign._min_kept`.
    """

    lam: float
    scale: str = "min"
    sustain: float = 0.05
    zero_floor: float | None = None
    source: str = "entropy"
    refresh: int = 8
    step_rule: str = "range"
    min_kept: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise RecipeError(f"lam must be finite and not negative, got {self.lam}")
        if self.scale not in SCALES:
            hint = did_you_mean(self.scale, SCALES)
            raise RecipeError(f"scale must be one of {SCALES}, got {self.scale!r}{hint}")
        if not 0 <= self.sustain <= 1:
            raise RecipeError(f"sustain must lie in 0..1, got {self.sustain}")
        if self.zero_floor is not None and not 0 < self.zero_floor < 1:
            raise RecipeError(f"zero_floor must lie between 0 and 1, got {self.zero_floor}")
        if self.source not in SOURCES:
            hint = did_you_mean(self.source, SOURCES)
            raise RecipeError(f"rate must be one of {SOURCES}, got {self.source!r}{hint}")
        if self.step_rule not in STEPS:
            raise RecipeError(
                f"step_rule must be one of {STEPS}, got {self.step_rule!r}{did_you_mean(self.step_rule, STEPS)}"
            )
        if self.refresh < 1:
            raise RecipeError(f"refresh must be at least 1, got {self.refresh}")

    def costs(
        self, x: Tensor, low: float, high: float, table: Table, share: float, gain: float = 1.0
    ) -> Query[tuple[float, Table, Table]]:
        """lambda(l), the centroids, and the rate term ``-lambda(l) * log2 P_c`` of each in squared weight units.

        Args:
            x: flat float32 weights of the layer, with extremes ``low`` and ``high``.
            table: rising centroids, the zero cluster in the middle; with ``step_rule="rate"`` a uniform grid, and the
                centroids that come back may be those of a wider one.
            share: the layer's size relative to the largest layer, in (0, 1].
            gain: factor on the step, with ``step_rule="rate"``.
        """
        nothing, largest = np.zeros_like(table), max(-low, high)
        lam, bits = 0.0, nothing
        if self.lam and x.numel():
            tally = counting if self.step_rule == "range" else landmarks
            counts = yield from tally(x, boundaries(table, nothing), (low, high))
            bits = self.information(counts)
            delta = (share + self.sustain) / (1 + self.sustain)
            lam = self.lam * delta * self.multiplier(low, high, table, counts, bits)
        table = self.wide(table, lam, largest, gain)
        if lam == 0:  # also for an outlier so far off that float64 sees no difference: zero times infinity is no cost
            return 0.0, table, nothing
        if self.step_rule == "rate":
            bits = self.information((yield from counting(x, boundaries(table, nothing), (low, high))))
        return lam, table, lam * bits

    def wide(self, table: Table, lam: float, largest: float, gain: float = 1.0) -> Table:
        """The uniform grid whose step pays for itself at lambda(l) ``lam``, or ``table`` where that is wider.

        With ``step_rule="range"`` it is ``table``.

        A grid so fine that few weights are worth more than zero spends its rate on magnitudes: at 1.3 bits a weight,
        15 levels over the range of a Gaussian have 1.5 times the squared error of a step three times as wide. The best
        step grows with the root of lambda: ``lam = 0.15 * step**2`` stays within 5 % of the least error at the same
        entropy for Gaussian, Laplacian and t-distributed weights between 0.3 and 1.3 bits. (For ever finer grids the
        factor is ``ln(2) / 6``, as the squared error is ``step**2 / 12`` and falls by a factor of four with each bit;
        video coders take 0.85 / 4: Sullivan and Wiegand 1998, "Rate-distortion optimization for video compression".)

        Args:
            largest: the largest magnitude among the layer's weights; twice it is a grid on which all of them are zero.
            gain: factor on either step: what training made of it.
        """
        zero = len(table) // 2
        least = table[zero + 1]
        step = gain * max(least, min(math.sqrt(lam / SLOPE), 2.0 * largest))
        if self.step_rule == "range" or step == least:
            return table
        return (np.arange(len(table)) - zero) * np.float64(np.float32(min(step, OUTERMOST / zero)))

    def information(self, counts: NDArray[np.int64]) -> Table:
        """``-log2 P_c``: infinite for an empty cluster, which no weight can then enter.

        The zero cluster counts at least one weight, so zero stays possible in every layer (the released code
        fails on a layer in which no weight is nearest to zero).
        """
        held = counts.astype(np.float64)
        zero = len(held) // 2
        held[zero] = max(held[zero], 1.0)
        share = held / held.sum()
        if self.zero_floor is not None and share[zero] < self.zero_floor:
            share *= (1 - self.zero_floor) / (1 - share[zero])
            share[zero] = self.zero_floor
        with np.errstate(divide="ignore"):
            return -np.log2(share)

    def multiplier(self, low: float, high: float, table: Table, counts: NDArray[np.int64], bits: Table) -> float:
        """The layer's lambda for ``lam * delta == 1``.

        On either side of zero, the outermost weight w with its cluster c falls to zero at
        ``(w**2 - (w - w_c)**2) / (I_c - I_0)``, I being the information content. ``"min"`` takes the smaller
        of both sides (EC2T, thesis eqs. 4.8-4.14, which the ECQx paper builds on), ``"max"`` the larger
        (released ECQx code, there with a misplaced bracket). A side has no such lambda if it holds no weight
        or if its outermost cluster is at least as probable as zero; then the other side decides, and if
        neither has one, it is the squared smallest distance between neighbouring centroids.
        """
        used, zero = np.flatnonzero(counts), len(table) // 2
        falls = []
        for weight, c in ((low, used[0]), (high, used[-1])):
            if c != zero and weight * table[c] > 0 and bits[c] > bits[zero]:
                falls.append((weight**2 - (weight - table[c]) ** 2) / (bits[c] - bits[zero]))
        if not falls:
            return float(np.diff(table).min()) ** 2
        return float(min(falls) if self.scale == "min" else max(falls))
