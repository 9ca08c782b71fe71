"""ECQx's assignment as the paper writes it, over a whole [clusters x weights] table: slow, and the oracle of the rest.

Source: Becking et al., arXiv 2109.04236, equations 1, 10 and 11. What trains networks is in
:mod:`fewbits.assign._entropy`, which makes no such table and finds beta without a search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def costs(weights: Numbers, centroids: Numbers, lam: float) -> Numbers:
    """``(w - w_c)**2 - lam * log2 P_c`` (eq. 1): [clusters x weights], in squared weight units.

    P_c is the share of weights nearest to a cluster. Zero's cluster, in the middle, counts one weight at least.

    Args:
        weights, centroids: flat; the centroids rise. lam: the layer's lambda(l), in squared weight units per bit.
    """
    distance = (weights - centroids[:, None]) ** 2
    held = np.bincount(cheapest(distance), minlength=len(centroids)).astype(np.float64)
    held[len(held) // 2] = max(1.0, held[len(held) // 2])
    with np.errstate(divide="ignore"):
        return distance - lam * np.log2(held / held.sum())[:, None] if lam else distance


def cheapest(cost: Numbers) -> NDArray[np.int64]:
    """The cluster of least cost of each weight; of equal costs the one nearest to zero's, then the lower."""
    inward = np.argsort(np.abs(np.arange(len(cost)) - len(cost) // 2), kind="stable")
    found: NDArray[np.int64] = inward[cost[inward].argmin(0)]
    return found


def ecqx(cost: Numbers, scores: Numbers, rho: float, p: float) -> tuple[NDArray[np.int64], float]:
    """Each weight's cluster and beta: zero costs ``rho * R'**beta`` times as much (eq. 10), ``R' = |R| / max |R|``.

    beta solves ``rho * mean(R')**beta = 1`` (eq. 11), or is smaller, so that at most a share p of weights turns zero.

    Args:
        cost: of :func:`costs`. scores: flat, not all of one magnitude. rho: 1 or more. p: 0..1.
    """
    zero, relevance = len(cost) // 2, np.maximum(np.abs(scores) / np.abs(scores).max(), 1e-12)
    allowed = (cheapest(cost) == zero).sum() + np.floor(p * len(scores))

    def at(beta: float) -> NDArray[np.int64]:
        weighted = cost.copy()
        weighted[zero] *= rho * relevance**beta
        return cheapest(weighted)

    low, beta = 0.0, min(1.0, np.log(rho) / -np.log(relevance.mean()))
    if (at(beta) == zero).sum() > allowed:  # fewer are zero at a smaller beta
        for _ in range(60):
            middle = (low + beta) / 2
            low, beta = (low, middle) if (at(middle) == zero).sum() > allowed else (middle, beta)
        beta = low
    return at(beta), float(beta)
