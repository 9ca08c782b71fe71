"""Which cluster is cheapest for a weight: an exact one-dimensional power diagram.

``argmin_c (w - w_c)**2 + b_c`` over scalar ``w`` equals ``argmin_c w_c**2 + b_c - 2 w_c w``: the lower
envelope of straight lines. The cluster index rises with ``w``, so the whole assignment is a handful of
boundaries (found once, in float64, on the tiny table of clusters) and one binary search per weight. No matrix
of [clusters x weights] exists at any time.

Ties go to the cluster nearer to zero (the smaller ``|level|``; between -k and +k to -k). The boundaries are
rounded to float32 such that a float32 weight lands on the same side as in exact comparison with the float64
boundary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.assign._batched import Query, run_alone

Table = NDArray[np.float64]

CHUNK = 1 << 18
"""Weights handled at once on the CPU, so that the intermediate results stay in the cache."""

COMPARED = 40
"""Up to so many boundaries, comparing with each is faster on a CPU than a binary search per weight, which guesses."""


def boundaries(centroids: Table, costs: Table) -> NDArray[np.float32]:
    """Boundaries between the cells of ``argmin_c (w - centroids[c])**2 + costs[c]``.

    Args:
        centroids: strictly rising, odd length K; index ``c`` is level ``c - K // 2``.
        costs: length K, in squared weight units; infinite for a cluster that must not be used. At least one
            is finite.

    Returns:
        float32 array of K - 1: ``w`` belongs to cluster ``c`` iff ``out[c-1] < w <= out[c]``. Clusters that
        are cheapest nowhere have an empty cell.
    """
    if not costs.any():
        return _inward((centroids[:-1] + centroids[1:]) / 2, np.arange(len(centroids)) - len(centroids) // 2)
    cells: list[int] = []
    starts: list[float] = []
    position, price = centroids.tolist(), costs.tolist()
    for new in np.flatnonzero(np.isfinite(costs)).tolist():
        start = -math.inf
        while cells:
            last = cells[-1]
            gap = position[new] - position[last]
            start = (position[new] + position[last]) / 2 + (price[new] - price[last]) / (2 * gap)
            # A cell of zero width stays: at a three-way tie it may be the one nearest to zero.
            if start >= starts[-1]:
                break
            cells.pop()
            starts.pop()
            start = -math.inf
        cells.append(new)
        starts.append(start)
    between = _inward(np.array(starts[1:]), np.array(cells) - len(centroids) // 2)
    edges = np.full(len(centroids) - 1, np.float32(np.inf))
    edges[: cells[0]] = -np.inf
    edges[cells[0] : cells[-1]] = np.repeat(between, np.diff(cells))
    return edges


def _inward(edges: Table, levels: NDArray[np.int_]) -> NDArray[np.float32]:
    """Float32 boundaries such that ``w == edge`` goes to the neighbour with the smaller ``|level|``.

    ``w <= out`` must mean ``w <= edge`` where that is the left one, ``w < edge`` where it is the right one.
    """
    to_the_right = np.abs(levels[1:]) < np.abs(levels[:-1])
    with np.errstate(over="ignore"):
        rounded = edges.astype(np.float32)
    exact = rounded.astype(np.float64)
    too_high = (exact > edges) | (to_the_right & (exact == edges))
    return np.where(too_high, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Matching pieces of flat tensors of one length: cache-sized on the CPU, whole elsewhere."""
    size = CHUNK if tensors[0].device.type == "cpu" else max(1, tensors[0].numel())
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


Extremes = tuple[float, float]
"""The smallest and the largest of some weights, if known: boundaries beyond them cost nothing then."""
EVERYWHERE = -math.inf, math.inf


def locate(x: Tensor, bounds: NDArray[np.float32], extremes: Extremes = EVERYWHERE) -> Tensor:
    """int16 levels (0 in the middle) of a flat float32 tensor: how many boundaries lie below each weight."""
    zero = (len(bounds) + 1) // 2
    levels = torch.empty(x.shape, dtype=torch.int16, device=x.device)
    edges, copies = np.unique(bounds, return_counts=True)
    if x.device.type != "cpu" or len(edges) > COMPARED:
        table = torch.from_numpy(bounds).to(x.device, non_blocking=True)
        for part, out in chunks(x, levels):
            out.copy_(torch.bucketize(part, table, out_int32=True).sub_(zero))
        return levels
    below = torch.empty(min(CHUNK, x.numel()), dtype=torch.bool)
    for part, out in chunks(x, levels):
        out.fill_(-zero)
        above = below[: part.numel()]
        for edge, times in zip(edges.tolist(), copies.tolist(), strict=True):
            if edge < extremes[0]:
                out.add_(times)
            elif edge < extremes[1]:
                torch.gt(part, edge, out=above)
                out.add_(above.view(torch.int8), alpha=times)
    return levels


def count(x: Tensor, bounds: NDArray[np.float32], extremes: Extremes = EVERYWHERE) -> NDArray[np.int64]:
    """How many weights lie in each cell."""
    return run_alone(counting(x, bounds, extremes))


def counting(x: Tensor, bounds: NDArray[np.float32], extremes: Extremes = EVERYWHERE) -> Query[NDArray[np.int64]]:
    """As :func:`count`, for :func:`fewbits.assign._batched.run_batched`."""
    if x.device.type == "cpu" or len(bounds) > COMPARED:
        return _count(x, bounds, extremes)
    return (yield from compared(x, bounds))


def compared(x: Tensor, bounds: NDArray[np.float32]) -> Query[NDArray[np.int64]]:
    """As :func:`counting`, by comparing every weight with every boundary at once: a byte of memory for each pair."""
    edges = torch.from_numpy(bounds).to(x.device, non_blocking=True).unsqueeze(1)
    above = (yield (x > edges).sum(1)).astype(np.int64)
    return np.concatenate([[x.numel()], above]) - np.concatenate([above, [0]])


def _count(x: Tensor, bounds: NDArray[np.float32], extremes: Extremes) -> NDArray[np.int64]:
    if len(bounds) > COMPARED:
        edges = torch.from_numpy(bounds).to(x.device)
        total = torch.zeros(len(bounds) + 1, dtype=torch.int64, device=x.device)
        for (part,) in chunks(x):
            total += torch.bincount(torch.bucketize(part, edges, out_int32=True), minlength=len(bounds) + 1)
        return total.cpu().numpy()
    above = np.zeros(len(bounds) + 2, dtype=np.int64)  # weights above each boundary, all of them above the first
    above[0] = x.numel()
    found = torch.empty(min(CHUNK, x.numel()), dtype=torch.bool)
    for (part,) in chunks(x):
        some = found[: part.numel()]
        for k, edge in enumerate(bounds.tolist(), start=1):
            if edge < extremes[0]:
                above[k] += part.numel()
            elif edge < extremes[1]:
                torch.gt(part, edge, out=some)
                above[k] += int(some.count_nonzero())
    return above[:-1] - above[1:]


def landmarks(x: Tensor, bounds: NDArray[np.float32], extremes: Extremes) -> Query[NDArray[np.int64]]:
    """As :func:`counting`, exact for zero's cell and those of the extremes; what is between counts as one cell there.

    Four boundaries are compared with instead of all of them.
    """
    first, last = (int(np.searchsorted(bounds, value)) for value in extremes)
    cells = {first, (len(bounds) + 1) // 2, last}
    kept = sorted({edge for cell in cells for edge in (cell - 1, cell) if 0 <= edge < len(bounds)})
    found = yield from counting(x, bounds[kept], extremes)
    counts = np.zeros(len(bounds) + 1, dtype=np.int64)
    counts[[0, *(edge + 1 for edge in kept)]] = found
    return counts
