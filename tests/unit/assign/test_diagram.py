from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewbits.assign import _diagram as diagram
from fewbits.assign._diagram import boundaries, count, locate

INF = math.inf


def levels(w: list[float], table: list[float], costs: list[float]) -> list[int]:
    return locate(torch.tensor(w), boundaries(np.array(table), np.array(costs))).tolist()


def test_no_cost_gives_the_midpoints() -> None:
    assert boundaries(np.array([-2.0, 0.0, 4.0]), np.zeros(3)).tolist() == pytest.approx([-1.0, 2.0])


def test_ties_go_towards_zero() -> None:
    assert levels([-1.5, -0.5, 0.5, 1.5], [-2.0, -1.0, 0.0, 1.0, 2.0], [0.0] * 5) == [-1, 0, 0, 1]
    assert levels([-1.0, 1.0], [-2.0, -1.0, 0.0, 1.0, 2.0], [0.0, INF, 0.0, INF, 0.0]) == [0, 0]


def test_three_way_tie_goes_to_zero() -> None:
    # (0 - 1)**2 + 0 == (0 - 0)**2 + 1: all three clusters cost the same at w = 0, and zero nowhere less.
    assert levels([-1e-30, 0.0, 1e-30], [-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]) == [-1, 0, 1]


def test_tie_of_plus_and_minus_goes_to_minus() -> None:
    assert levels([0.0], [-1.0, 0.0, 1.0], [0.0, INF, 0.0]) == [-1]


def test_dear_and_forbidden_clusters_have_empty_cells() -> None:
    bounds = boundaries(np.arange(-3.0, 4.0), np.array([INF, 0.0, 9.0, 0.0, INF, 0.0, INF]))
    assert bounds.tolist() == [-INF, -1.0000001192092896, -1.0000001192092896, 1.0, 1.0, INF]
    assert levels([-9.0, 9.0], [-1.0, 0.0, 1.0], [INF, 0.5, INF]) == [0, 0]


def test_float32_weights_fall_on_the_exact_side() -> None:
    edge = 0.1  # not a float32 number; the nearest one lies above it
    above, below = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(0))
    assert float(above) > edge > float(below)
    assert levels([float(above), float(below)], [-0.2, 0.0, 0.2], [0.0] * 3) == [1, 0]
    assert levels([-float(above), -float(below)], [-0.2, 0.0, 0.2], [0.0] * 3) == [-1, 0]


def test_edges_beyond_float32() -> None:
    assert levels([-3e38, 3e38], [-1.0, 0.0, 1.0], [1e300, 0.0, 1e300]) == [0, 0]
    assert levels([-3e38, 3e38], [-1.0, 0.0, 1.0], [0.0, 1e300, 1e300]) == [-1, -1]


def test_count_equals_levels_over_many_chunks() -> None:
    x = torch.randn(700_001, generator=torch.Generator().manual_seed(0))
    bounds = boundaries(np.arange(-7.0, 8.0) / 3, np.zeros(15))
    expected = torch.bincount(locate(x, bounds).long() + 7, minlength=15)
    assert count(x, bounds).tolist() == expected.tolist()
    assert locate(x[:0], bounds).shape == (0,)


def test_comparing_finds_what_searching_finds(monkeypatch) -> None:
    x = torch.randn(300_001, generator=torch.Generator().manual_seed(1))
    bounds = boundaries(
        np.arange(-7.0, 8.0) / 3, np.array([np.inf, 4, 3, 2, 1, 0.6, 0.3, 0.1, 0.4, 1, 1, 2, np.inf, 5, 6])
    )
    assert not np.isfinite(bounds).all()
    assert len(np.unique(bounds)) < len(bounds)
    x[:28] = torch.from_numpy(np.repeat(bounds, 2)).nan_to_num(posinf=3e38, neginf=-3e38)  # on the edges themselves
    found = locate(x, bounds), count(x, bounds)
    monkeypatch.setattr(diagram, "COMPARED", 0)
    searched = locate(x, bounds), count(x, bounds)
    assert torch.equal(found[0], searched[0])
    assert found[1].tolist() == searched[1].tolist()
