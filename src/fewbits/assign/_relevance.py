"""How relevance decides about zero (ECQx, eqs. 10 and 11), solved exactly instead of searched.

With R' = |R| / max|R| in a layer, the cost of the zero cluster is multiplied, weight by weight, by
``rho * R'**beta``; all other costs stay. Let d0 be a weight's zero cost and m its least non-zero cost::

    zero  <=>  rho * R'**beta * d0 <= m  <=>  beta >= tau,   tau = max(0, ln(rho * d0 / m) / -ln R')

because -ln R' >= 0 makes the left side fall (not rise) with beta. Each weight thus turns to zero once, at its
own tau, as beta grows: the number of zeros is a monotone step function of beta, and the largest beta that
keeps a given number of zeros is an order statistic of tau. At beta = 0 the factor is rho >= 1 for all, so no
weight is zero that plain ECQ would keep: some beta always satisfies the bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewbits.assign._batched import Query
from fewbits.assign._diagram import EVERYWHERE, Extremes, Table, boundaries, chunks, locate
from fewbits.assign._given import giving
from fewbits.assign._grid import kth_smallest
from fewbits.assign.assigner import Scores
from fewbits.errors import RecipeError, did_you_mean

P_RULES = ("paper", "released")
LEAST = 1e-12
"""Normalised relevance never falls below this (exact zeros are common)."""
TINY = 1e-30
FARTHEST = 1e18
"""Weights are clipped at this many steps from zero, where the square still fits into float32."""


@dataclass(frozen=True)
class RelevanceTerm:
    """How scores enter the assignment; :func:`fewbits.assign.ecqx` says what each attribute does."""

    p: float = 0.4
    rho: float = 2.0
    momentum: float = 0.1
    p_rule: str = "paper"

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise RecipeError(f"p must lie in 0..1, got {self.p}")
        if not (math.isfinite(self.rho) and self.rho >= 1):
            raise RecipeError(f"rho must be finite and at least 1, got {self.rho}")
        if not 0 <= self.momentum < 1:
            raise RecipeError(f"momentum must lie in [0, 1), got {self.momentum}")
        if self.p_rule not in P_RULES:
            hint = did_you_mean(self.p_rule, P_RULES)
            raise RecipeError(f"p_rule must be one of {P_RULES}, got {self.p_rule!r}{hint}")

    def mixed(self, name: str, scores: Scores, weight: Tensor, previous: Tensor | None) -> Query[Tensor]:
        """``(1 - momentum) * score + momentum * previous``: signed, float32, on the weight's device."""
        fresh = yield from giving(name, weight, scores)
        if previous is None or self.momentum == 0:
            return fresh
        return fresh.mul_(1 - self.momentum).add_(previous.to(weight.device), alpha=self.momentum)

    def levels(
        self,
        x: Tensor,
        scores: Tensor,
        table: Table,
        costs: Table,
        zeros: int,
        extra: Tensor | None = None,
        extremes: Extremes = EVERYWHERE,
    ) -> Query[tuple[Tensor, float] | None]:
        """int16 levels and beta, or ``None`` where relevance has no say and plain ECQ holds.

        It has no say if it is zero everywhere or the same everywhere (then R' = 1 throughout and no beta
        leaves the mean unchanged), or if zero is the only cluster in use.

        Args:
            x, scores: flat float32 weights and signed scores.
            table, costs: centroids and rate terms of all clusters.
            zeros: how many weights plain ECQ puts to zero.
            extra: further rate term per weight, for not being zero.
            extremes: of the weights.
        """
        zero = len(table) // 2
        nonzero = costs.copy()
        nonzero[zero] = np.inf
        if not scores.numel() or not np.isfinite(nonzero).any():
            return None
        ends = torch.stack(torch.aminmax(scores.abs()))
        least, peak = yield ends
        if least == peak:
            return None
        decay, total = _decay(scores, ends[1])
        mean = float((yield total)[0]) / scores.numel()
        if mean >= 1:
            return None
        # rho * mean(R')**beta = 1: the mean relevance leaves the decision unchanged (eq. 11 ff.).
        start = float(np.float32(min(1.0, math.log(self.rho) / -math.log(mean))))
        allowed = math.floor(self.p * x.numel())
        # In units of the grid float32 has room for the squares, however small the weights are.
        unit = float(np.diff(table).min())
        levels = locate(x, boundaries(table, nonzero), extremes)
        more = None if extra is None else extra / unit**2
        tau = _thresholds(x, levels, decay, table / unit, costs / unit**2, unit, self.rho, more)
        released = self.p_rule == "released"
        beta = yield from largest_beta(
            tau, start, least=zeros - allowed if released else 0, most=zeros if released else zeros + allowed
        )
        return None if beta is None else (keep(levels, tau > beta), beta)


def keep(levels: Tensor, kept: Tensor) -> Tensor:
    """``levels`` with zeros where ``kept`` is false, in place: ten times as fast on a CPU as to fill by mask."""
    return levels.mul_(kept.view(torch.int8))


def largest_beta(tau: Tensor, start: float, least: int, most: int) -> Query[float | None]:
    """The exponent nearest to ``start`` with ``least <= count(tau <= beta) <= most``.

    The upper bound has priority where ties or unreachable weights (tau infinite) rule out the lower one.
    ``None`` if even beta = 0 exceeds ``most``; only rounding can cause that.
    """
    beta, zeros = start, int((yield (tau <= start).sum())[0])
    if zeros < least:
        beta = min(float((yield kth_smallest(tau, least))[0]), float(torch.finfo(tau.dtype).max))
        zeros = int((yield (tau <= beta).sum())[0])
    if zeros > most:
        above = float((yield kth_smallest(tau, most + 1))[0])
        beta = float(np.nextafter(np.float32(above), np.float32(-np.inf)))
    return beta if beta >= 0 else None


def _decay(scores: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
    """``-ln R'`` (zero or more), and the sum of R'."""
    decay = torch.empty_like(scores)
    total = torch.zeros((), dtype=torch.float64, device=scores.device)
    for score, out in chunks(scores, decay):
        torch.abs(score, out=out).div_(peak).clamp_(LEAST, 1.0)
        total += out.sum(dtype=torch.float64)
        out.log_().abs_()  # not neg: -ln 1 must be +0, tau divides by it
    return decay, total


def _thresholds(
    x: Tensor,
    levels: Tensor,
    decay: Tensor,
    table: Table,
    costs: Table,
    unit: float,
    rho: float,
    extra: Tensor | None = None,
) -> Tensor:
    """tau of each weight; ``levels`` are the best non-zero ones; table, costs and extra in units of the grid."""
    zero = len(table) // 2
    position = torch.from_numpy(table.astype(np.float32)).to(x.device, non_blocking=True)
    price = torch.from_numpy(costs.clip(max=FARTHEST**2).astype(np.float32)).to(x.device, non_blocking=True)
    tau = torch.empty_like(x)
    for weight, level, fall, out, *more in chunks(x, levels, decay, tau, *(() if extra is None else (extra,))):
        cell = level.int().add_(zero)
        torch.div(weight, unit, out=out).clamp_(-FARTHEST, FARTHEST)
        best = position.index_select(0, cell).sub_(out).square_().add_(price.index_select(0, cell))
        for further in more:
            best.add_(further).clamp_(min=LEAST)  # at no cost at all, it is chosen whatever beta is
        out.square_().add_(price[zero]).mul_(rho).div_(best).log_()
        # Not positive: zero at any beta. R' = 1 has no fall: such a weight is out of reach for any beta, or at 0.
        out.clamp_(min=0.0).div_(fall.clamp(min=TINY))
    return tau
