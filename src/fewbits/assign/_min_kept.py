"""No layer loses all of its weights: the minimum threshold of Global MP (arXiv 2209.14624), for clusters.

Where a layer would keep fewer weights than ``min_kept``, its largest ones stay, too. It then no longer depends on
lambda, so that bytes fall with lambda as far as there, but may rise by a few percent where that begins to hold: its
weights go to their nearest clusters then, where entropy drew them together before.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewbits.assign._batched import Query
from fewbits.assign._diagram import Extremes, Table, boundaries, locate
from fewbits.assign._grid import kth_smallest

REACH = 1.5
"""Widest step, relative to the smallest weight that is kept: that weight is then nearer to its cluster than to zero."""


def spare(
    x: Tensor, levels: Tensor, table: Table, needed: int, extremes: Extremes, finest: float | None, gain: float
) -> Query[tuple[Tensor, Table]]:
    """Levels and centroids with which the ``needed`` largest weights are not zero, nor any that was not before.

    On a grid whose step may change, all of them go to their nearest clusters; else those that were not zero stay where
    they were.

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
    changed = False
    if finest is not None:
        step = max(gain * finest, min(gain * REACH, 2.0) * least)  # beyond twice the least, zero would be nearer
        changed = step < table[zero + 1]
        table = (np.arange(len(table)) - zero) * np.float64(np.float32(step)) if changed else table
    costs = np.zeros_like(table)
    costs[zero] = np.inf
    near = locate(x, boundaries(table, costs), extremes)
    kept = near * ((levels != 0) | (sizes >= least) & (x != 0))
    return kept if changed else torch.where(levels != 0, levels, kept), table
