"""No layer loses all of its weights: the minimum threshold of Global MP (arXiv 2209.14624), for clusters."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fewbits.assign.diagram import Extremes, Table, boundaries, locate
from fewbits.assign.grid import kth_smallest
from fewbits.assign.together import Asking

REACH = 1.5
"""Widest step, relative to the smallest weight that is kept: that weight is then nearer to its cluster than to zero."""


def spare(
    x: Tensor, levels: Tensor, table: Table, needed: int, extremes: Extremes, finest: float | None, gain: float
) -> Asking[tuple[Tensor, Table]]:
    """Levels and centroids with which the ``needed`` largest weights are not zero, nor any that was not before.

    Args:
        x, levels: flat float32 weights and their levels, fewer than ``needed`` of which are not zero.
        table: centroids, rising, the zero cluster in the middle.
        extremes: of the weights.
        finest: of a uniform grid whose step may change, the smallest step; else ``None``. gain: factor on steps.

    Returns:
        Zero stays what is zero among the weights themselves, so a layer may keep fewer.
    """
    sizes = x.abs()
    least = float((yield kth_smallest(sizes, x.numel() - needed + 1))[0])
    zero = len(table) // 2
    if finest is not None and (step := gain * max(finest, REACH * least)) < table[zero + 1]:
        table = (np.arange(len(table)) - zero) * np.float64(np.float32(step))
    costs = np.zeros_like(table)
    costs[zero] = np.inf
    near = locate(x, boundaries(table, costs), extremes)
    return near * ((levels != 0) | (sizes >= least) & (x != 0)), table
