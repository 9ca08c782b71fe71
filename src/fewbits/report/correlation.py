"""Correlations of two vectors of the same length."""

from __future__ import annotations

import torch
from torch import Tensor


def pearson(a: Tensor, b: Tensor) -> float | None:
    """Linear correlation, -1 to 1; ``None`` where a vector is constant or shorter than two."""
    a, b = a.double(), b.double()
    if len(a) < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return None
    a, b = _unit(a), _unit(b)
    return float((a @ b).clamp(-1, 1))


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Rank correlation, -1 to 1: Pearson's over ranks, equal values sharing their mean rank."""
    return pearson(ranks(a), ranks(b))


def ranks(values: Tensor) -> Tensor:
    """Rank of each value, from 1, as float64; equal values share the mean of theirs."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[place]


def _unit(values: Tensor) -> Tensor:
    """Centred and of length one. Scaled first: tiny relevances must not vanish when they are squared."""
    centred = values - values.mean()
    largest = centred.abs().max()
    if largest == 0:  # values that differ by less than the rounding of their mean
        return centred
    centred = centred / largest
    return centred / centred.norm()
