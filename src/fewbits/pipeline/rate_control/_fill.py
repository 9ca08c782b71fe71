"""Between two plans: where lambda jumps over a size, single weights reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fewbits.plan import Clustered, Plan


@torch.no_grad()
def fill_to_size(
    smaller: Plan,
    larger: Plan,
    weights: Mapping[str, Tensor],
    size_of: Callable[[Plan], int],
    goal: int,
    *,
    tolerance: float = 0.002,
    tries: int = 24,
) -> Plan:
    """``smaller`` with as many weights as fit moved to where ``larger`` has them, greatest gain first.

    Args:
        smaller: a plan whose file is at most ``goal`` bytes. larger: one of the same tensors; its
            levels are taken at the steps (or codebooks) of ``smaller``.
        weights: the float weights, or their differences to a base; a move gains what squared error it saves.
        size_of: bytes of a plan's file.
        goal: upper bound, bytes. tolerance: how far below it is close enough, relative to it.
        tries: evaluations of ``size_of`` at most.
    """
    moves = {
        name: replace(smaller.clustered[name], levels=entry.levels)
        for name, entry in larger.clustered.items()
        if isinstance(smaller[name], Clustered) and not torch.equal(entry.levels.cpu(), _levels(smaller, name))
    }
    if not moves:
        return smaller
    gains = {n: _gain(smaller.clustered[n], entry, weights[n]) for n, entry in moves.items()}
    order = torch.cat([g.reshape(-1) for g in gains.values()])
    count = int((order > 0).sum())  # at other steps than its own, a level may be the worse one
    if count == 0:
        return smaller
    rank = torch.empty(len(order), dtype=torch.int64)
    rank[order.argsort(descending=True, stable=True)] = torch.arange(len(order))
    ranks = dict(zip(gains, rank.split([g.numel() for g in gains.values()]), strict=True))

    def moved(k: int) -> Plan:
        entries = {}
        for name, entry in moves.items():
            here = ranks[name].view(entry.shape) < k
            entries[name] = replace(entry, levels=torch.where(here, entry.levels.cpu(), _levels(smaller, name)))
        return smaller.updated(entries)

    best, fits, too_many = smaller, 0, count + 1
    sizes: dict[int, int] = {}
    for turn in range(tries):
        if too_many - fits <= 1:
            break
        k = count if too_many > count else _between(fits, too_many, sizes, goal * (1 - tolerance / 2), turn)
        plan = moved(k)
        size = sizes[k] = size_of(plan)
        if size > goal:
            too_many = k
            continue
        best, fits = plan, k
        if size >= goal * (1 - tolerance):
            break
    return best


def _between(fits: int, too_many: int, sizes: Mapping[int, int], aim: float, turn: int) -> int:
    """How many moves to try next: where a straight line has the size, or every third time the middle."""
    if fits not in sizes or turn % 3 == 2:
        return (fits + too_many) // 2
    way = (aim - sizes[fits]) / max(1, sizes[too_many] - sizes[fits])
    return min(max(round(fits + way * (too_many - fits)), fits + 1), too_many - 1)


def _levels(plan: Plan, name: str) -> Tensor:
    return plan.clustered[name].levels.cpu()


def _gain(here: Clustered, there: Clustered, weight: Tensor) -> Tensor:
    """Squared error that each move saves; 0 where there is nothing to move."""
    w = weight.detach().cpu().double()
    return (w - here.own().cpu().double()).square() - (w - there.own().cpu().double()).square()
