"""The Pareto front: what no other point beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]], larger: Sequence[bool]) -> list[bool]:
    """Whether each point is on the front: no other is at least as good in everything and better in something.

    Args:
        points: one row of objectives per point. larger: per objective, whether larger is better (else smaller).
    """
    signed = [[v if up else -v for v, up in zip(p, larger, strict=True)] for p in points]
    return [not any(_beats(other, mine) for other in signed) for mine in signed]


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))
