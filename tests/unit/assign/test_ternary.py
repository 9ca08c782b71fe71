from __future__ import annotations

import pytest
import torch

from fewbits.assign import ternary
from fewbits.errors import RecipeError


@pytest.mark.parametrize(
    ("weight", "codebook"),
    [
        ([[-2.0, 0.5, 4.0]], (-1.0, 0.0, 2.0)),
        ([[1.0, 4.0]], (-2.0, 0.0, 2.0)),
        ([[-1.0, -4.0]], (-2.0, 0.0, 2.0)),
        ([[0.0, 0.0]], (-1.0, 0.0, 1.0)),
        ([[]], (-1.0, 0.0, 1.0)),
    ],
)
def test_first_centroids(weight: list[list[float]], codebook: tuple[float, ...]) -> None:
    assert ternary(reach=0.5).init({"a": torch.tensor(weight)})["a"].codebook == codebook


def test_entry() -> None:
    assigner = ternary(0.0, reach=1.0)
    weights = {"a": torch.tensor([[-1.0, -0.4, 0.3, 2.0]])}
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    entry = plan.clustered["a"]
    assert (entry.bits, entry.lowest, entry.codebook, entry.step) == (2, -1, (-1.0, 0.0, 2.0), None)
    assert entry.values().tolist() == [[-1.0, 0.0, 0.0, 2.0]]


def test_the_full_multiplier_zeroes_the_weaker_side() -> None:
    """gamma = delta = 1: the outermost weight of the weaker side is as cheap at zero, and ties go to zero."""
    weight = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    assigner = ternary(1.0 + 1e-9)
    levels = assigner.update({"a": weight}, None, assigner.init({"a": weight}))[0].clustered["a"].levels
    assert not ((levels < 0).any() and (levels > 0).any())


def test_reach() -> None:
    for reach in (0.0, 1.1, float("nan")):
        with pytest.raises(RecipeError, match="reach"):
            ternary(reach=reach)
