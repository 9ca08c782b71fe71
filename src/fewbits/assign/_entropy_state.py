"""What ECQ, ECQx and EC2T remember of a layer: the terms of the last decision, and the centroids it was about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch import Tensor

from fewbits.assign import _grid as grid
from fewbits.assign._diagram import Table
from fewbits.assign.state import LayerState
from fewbits.plan import Clustered


@dataclass(frozen=True, eq=False, kw_only=True)
class EntropyState(LayerState):
    """A record without centroids: :class:`GridState` and :class:`CodebookState` have them.

    Attributes:
        scores: float32 tensor of the weight's shape, the signed scores mixed over batches; ``None`` so far.
        lam: the layer's Lagrange multiplier lambda(l) of the last update, in squared weight units per bit.
        beta: exponent of the relevances in the last update; ``None`` where relevance had no say.
        sparsity_plain: share of zeros without relevance (plain ECQ), in 0..1.
        chances: with the coder's own rate: what it expected of the last levels it was asked about, see
            :func:`fewbits.assign._code.chances`; ``age`` is the number of updates since.
    """

    scores: Tensor | None = None
    lam: float = 0.0
    beta: float | None = None
    sparsity_plain: float | None = None
    chances: Tensor | None = None
    age: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class GridState(EntropyState):
    """A record with a uniform grid.

    Attributes:
        step: step size (a float32 number); with steps that follow the rate, the finest.
        gain: with steps that follow the rate, the factor that training has put on them.
        held: with steps that follow the rate, the one of the last update; ``None`` where ``step`` is held.
    """

    step: float
    gain: float = 1.0
    held: float | None = None

    def centroids(self, bits: int) -> Table:
        """Float64 values of all levels, rising."""
        return grid.centroids(self.step, bits)

    def entry(self, levels: Tensor, table: Table, bits: int) -> Clustered:
        """The plan's entry of levels on ``table``, this grid or a wider one."""
        return Clustered(levels, bits, step=float(table[len(table) // 2 + 1]))

    def with_step(self, name: str, step: float) -> Self:
        if self.held is None:
            return replace(self, step=step)
        return replace(self, gain=self.gain * step / self.held, held=step)


@dataclass(frozen=True, eq=False, kw_only=True)
class CodebookState(EntropyState):
    """A record with centroids at any distances.

    Attributes:
        codebook: an odd number of float32 numbers, rising, with zero in the middle.
    """

    codebook: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Factor on steps: there are none."""
        return 1.0

    def centroids(self, bits: int) -> Table:
        """Float64 values of all levels, rising."""
        return np.array(self.codebook)

    def entry(self, levels: Tensor, table: Table, bits: int) -> Clustered:
        """The plan's entry of levels on ``table``."""
        return Clustered(levels, bits, codebook=self.codebook, lowest=-(len(self.codebook) // 2))
