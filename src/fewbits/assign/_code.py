"""What it costs at each place of a layer not to be zero, in the coder that will write it.

Arithmetic coding with contexts charges a non-zero weight little where its neighbours, its row and its channel are
busy, and much where they are not. Given the levels of the last update, the adaptive model of coder 1 says what
either outcome would cost at each place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewbits.assign._diagram import Table, boundaries, chunks, locate
from fewbits.codec.coder import chances_of

MOST = 2.0
"""Bits of surcharge at most: chosen, with the lower limit, on distortion and on validation data."""


def chances(levels: Tensor) -> Tensor:
    """The probability, flat float32, with which the coder expects each level not to be zero."""
    if not levels.numel():
        return torch.zeros(0, device=levels.device)
    told = chances_of(levels.detach().cpu().contiguous().numpy())
    return torch.from_numpy(told.astype(np.float32) / 65536).to(levels.device)


def surcharge(nonzero: Tensor, lam: float) -> Tensor:
    """``lam`` times the bits, 0 to 2, that not being zero costs more at a place than at the usual non-zero weight.

    It is ``log2((1 - q) / q)`` less its mean over the layer, weighted with q. What zero gains in the layer as a
    whole stays with first-order entropy, which looks at the float weights: the coder's own figure rises with every
    weight that falls, until the layer is empty. For the same reason nothing gets cheaper than that, which would
    fill busy rows at any distortion. Without these limits networks fell to chance in training; with them plain ECQ
    still may (results/rate.json).

    Args:
        nonzero: q, see :func:`chances`.
    """
    bits = torch.log2((1 - nonzero) / nonzero)
    usual = float((nonzero * bits).sum(dtype=torch.float64) / nonzero.sum(dtype=torch.float64))
    return bits.sub_(usual).clamp_(0.0, MOST).mul_(lam)


def surcharged_levels(x: Tensor, table: Table, costs: Table, extra: Tensor) -> Tensor:
    """argmin of ``(w - w_c)**2 + costs[c]``, plus ``extra`` for every cluster but zero.

    Args:
        x, extra: flat float32, one entry per weight. table: rising centroids, zero in the middle.
    """
    zero = len(table) // 2
    nonzero = costs.copy()
    nonzero[zero] = np.inf
    if not np.isfinite(nonzero).any():
        return torch.zeros(x.shape, dtype=torch.int16, device=x.device)
    levels = locate(x, boundaries(table, nonzero))
    position = torch.from_numpy(table).to(x.device, torch.float32)
    price = torch.from_numpy(costs).to(x.device, torch.float32)
    for weight, level, more in chunks(x, levels, extra):
        cell = level.int().add_(zero)
        best = position.index_select(0, cell).sub_(weight).square_().add_(price.index_select(0, cell)).add_(more)
        level.masked_fill_(weight.square().add_(price[zero]) <= best, 0)
    return levels
