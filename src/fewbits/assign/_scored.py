"""Pruning by scores that were measured on data: any scores over all layers, and Wanda's within each output.

Sources: first-order Taylor (Molchanov et al. 2017), Fisher; Wanda (Sun et al., arXiv 2306.11695).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewbits.assign.assigner import Assigner, Scores, Weights
from fewbits.assign.magnitude import joint
from fewbits.assign.pruning import AlreadyPruned, Found, Terms, pruner, rounded


def scored(
    sparsity: float = 0.5, *, of: int | None = None, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """The weights of smallest ``|score|`` of all layers together become zero.

    Scores of any kind will do, as long as those of different layers can be compared (Taylor's and Fisher's estimate
    one loss). Equal ones fall in the order of layers, then of indices. An update with ``scores=None`` goes on with
    those of the last update.

    Args:
        sparsity, of, regrow, straight_through: as for :func:`fewbits.assign.global_magnitude`.

    Raises:
        RecipeError: an impossible option; from ``update``, no scores at the first one.
        NonFiniteError, SelectionError: from ``init`` and ``update``, naming the layer, also for its scores.
    """

    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, scores: Scores | None) -> Found:
        assert scores is not None
        return joint(scores, already_pruned, count)

    return pruner(Terms(sparsity, of, regrow, straight_through), cuts, reads_scores=True)


def wanda(
    sparsity: float = 0.5, *, of: int | None = None, regrow: bool = False, straight_through: float = 0.0
) -> Assigner:
    """Wanda: ``|w| * (norm of its input)``, compared among the weights of one output, each of which loses its share.

    An output is what dimension 0 counts; a vector is one. Outputs whose share is no whole number are rounded so that
    the total is exact, lower ones losing less. Of equal products the lower index falls.

    Args:
        sparsity, of, regrow, straight_through: as for :func:`fewbits.assign.global_magnitude`.

    Raises:
        As :func:`scored`, whose rule for updates with ``scores=None`` holds as well. Scores are norms of inputs, of
        the weight's shape.
    """

    def cuts(weights: Weights, already_pruned: AlreadyPruned, count: int, scores: Scores | None) -> Found:
        assert scores is not None
        ranks, pruned = {}, {}
        for name, weight in weights.items():
            # In float64, as the product of two float32 numbers may be beyond float32.
            products = _rows(weight).double().abs() * _rows(scores[name]).double().abs()
            bar = already_pruned[name]
            out = torch.zeros_like(products, dtype=torch.bool) if bar is None else _rows(bar)
            order = products.masked_fill(out, -1.0).argsort(dim=1, stable=True)
            ranks[name], pruned[name] = order.argsort(dim=1), out.sum(1).tolist()
        kept = sum(weight.numel() for weight in weights.values()) - count
        stays = {}
        for (name, rank), keep in zip(ranks.items(), _kept_by_row(ranks, pruned, kept), strict=True):
            zeros = rank.shape[1] - torch.tensor(keep, dtype=torch.int64, device=rank.device)
            stays[name] = (rank >= zeros[:, None]).float().view(weights[name].shape)
        return joint(stays, already_pruned, count)  # those at 0, exactly as many as fall

    return pruner(Terms(sparsity, of, regrow, straight_through), cuts, reads_scores=True)


def _rows(tensor: Tensor) -> Tensor:
    """[outputs, weights of each]."""
    return tensor.reshape(len(tensor), -1) if tensor.dim() > 1 and len(tensor) else tensor.reshape(1, -1)


def _kept_by_row(ranks: dict[str, Tensor], pruned: dict[str, list[int]], kept: int) -> list[list[int]]:
    """How many weights each row of each layer keeps; ``kept`` in total, none more than it has left."""
    lengths = [rank.shape[1] for rank in ranks.values() for _ in range(len(rank))]
    share = kept / max(1, sum(lengths))
    limits = [n - gone for n, gone in zip(lengths, (g for rows in pruned.values() for g in rows), strict=True)]
    every = iter(rounded([share * n for n in lengths], limits, kept))
    return [[next(every) for _ in range(len(rank))] for rank in ranks.values()]
