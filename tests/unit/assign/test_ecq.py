from __future__ import annotations

import numpy as np
import pytest
import torch

from fewbits.assign import ecq
from fewbits.assign._rate import Rate
from fewbits.errors import RecipeError

TABLE = np.array([-1.0, 0.0, 1.0])


def test_information_content() -> None:
    assert Rate(1.0).information(np.array([1, 2, 1])).tolist() == [2.0, 1.0, 2.0]
    assert Rate(1.0).information(np.array([0, 4, 4])).tolist() == [np.inf, 1.0, 1.0]


def test_zero_cluster_is_never_empty() -> None:
    assert Rate(1.0).information(np.array([3, 0, 4])).tolist() == pytest.approx([np.log2(8 / 3), 3.0, 1.0])


def test_zero_floor_shrinks_the_others_in_proportion() -> None:
    bits = Rate(1.0, zero_floor=0.5).information(np.array([6, 1, 3]))
    assert (2.0**-bits).tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 6])
    bits = Rate(1.0, zero_floor=0.5).information(np.array([1, 6, 3]))
    assert (2.0**-bits).tolist() == pytest.approx([0.1, 0.6, 0.3])


@pytest.mark.parametrize(("scale", "expected"), [("min", (0.8**2 - 0.2**2) / 2), ("max", (1.5**2 - 0.5**2) / 2)])
def test_lambda_max_sends_the_outermost_weight_to_zero(scale: str, expected: float) -> None:
    bits = np.array([3.0, 1.0, 3.0])
    lam = Rate(1.0, scale).multiplier(-0.8, 1.5, TABLE, np.array([1, 4, 1]), bits)
    assert lam == pytest.approx(expected)
    weight, centroid = (-0.8, -1.0) if scale == "min" else (1.5, 1.0)
    assert weight**2 + lam * bits[1] == pytest.approx((weight - centroid) ** 2 + lam * bits[2])


def test_lambda_max_with_one_side_or_none() -> None:
    rate = Rate(1.0)
    assert rate.multiplier(0.0, 1.5, TABLE, np.array([0, 4, 2]), np.array([np.inf, 1.0, 3.0])) == 1.0
    # The outermost clusters are at least as probable as zero: no multiplier sends them there.
    assert rate.multiplier(-1.0, 1.0, TABLE * 3, np.array([4, 2, 4]), np.array([1.0, 2.0, 1.0])) == 9.0
    assert rate.multiplier(0.0, 0.0, TABLE * 3, np.array([0, 2, 0]), np.array([np.inf, 0.0, np.inf])) == 9.0


def test_small_layers_are_spared() -> None:
    small = torch.randn(10, 10)
    big = small.repeat(5, 4)  # the same weights twenty times: the same lambda_max and step
    assigner = ecq(4, 0.5, sustain=0.05)
    weights = {"big": big, "small": small}
    _, state = assigner.update(weights, None, assigner.init(weights))
    assert state["big"].lam > 0
    assert state["small"].lam == pytest.approx(state["big"].lam * (100 / 2000 + 0.05) / 1.05)


def test_lambda_raises_sparsity() -> None:
    weights = {"a": torch.randn(100, 100, generator=torch.Generator().manual_seed(0))}
    shares = []
    for lam in (0.0, 0.1, 0.5, 2.0):
        assigner = ecq(4, lam)
        shares.append(assigner.update(weights, None, assigner.init(weights))[1]["a"].sparsity)
    assert shares == sorted(set(shares))


@pytest.mark.parametrize(
    "options",
    [
        {"lam": -0.1},
        {"lam": float("nan")},
        {"scale": "mni"},
        {"sustain": 1.5},
        {"zero_floor": 1.0},
        {"bits": 1},
    ],
)
def test_impossible_options(options: dict[str, float | str]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ecq(**options)  # type: ignore[arg-type]
