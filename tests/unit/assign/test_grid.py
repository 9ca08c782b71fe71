from __future__ import annotations

import pytest
import torch

from fewbits.assign import gradient_scale, nearest, step_size
from fewbits.errors import NonFiniteError, RecipeError, SelectionError
from fewbits.plan import Clustered


def test_step_puts_the_percentile_on_the_outermost_level() -> None:
    weight = torch.arange(1.0, 1001.0).view(10, 100) * torch.tensor([1.0, -1.0]).repeat(50)
    assert step_size(weight, 4) == pytest.approx(999 / 7)
    assert step_size(weight, 4, percentile=100) == pytest.approx(1000 / 7)
    assert step_size(weight, 2, percentile=50) == 500.0
    assert step_size(weight, 2, percentile=50.05) == 501.0, "the nearest rank is the next one above"


def test_step_of_sparse_zero_and_empty_tensors() -> None:
    weight = torch.zeros(100, 100)
    weight[3, 3] = -0.5
    assert step_size(weight, 2) == 0.5
    assert step_size(torch.zeros(3, 3), 4) == step_size(torch.empty(0, 3), 4) == 1.0
    assert step_size(torch.tensor([[1e-45]]), 8) > 0


def test_step_is_a_float32_number() -> None:
    step = step_size(torch.tensor([[0.1, 1 / 3]], dtype=torch.float64), 4)
    assert step == float(torch.tensor(step, dtype=torch.float32))


def test_step_of_a_tensor_beyond_the_limit_of_quantile() -> None:
    weight = torch.ones(2**24 + 16)
    weight[5] = 9.0
    assert step_size(weight, 2) == 1.0


def test_nearest_clips_and_keeps_the_shape() -> None:
    weight = torch.tensor([[[-9.0, -1.6]], [[0.4, 0.6]]])
    levels = nearest(weight, 1.0, 3)
    assert levels.dtype == torch.int16
    assert levels.tolist() == [[[-3, -2]], [[0, 1]]]


def test_errors() -> None:
    with pytest.raises(NonFiniteError, match=r"'fc\.weight'"):
        step_size(torch.tensor([[float("nan")]]), 4, name="fc.weight")
    with pytest.raises(NonFiniteError):
        nearest(torch.tensor([[1e300]], dtype=torch.float64), 1.0, 4)
    with pytest.raises(SelectionError, match="int32"):
        nearest(torch.ones(2, 2, dtype=torch.int32), 1.0, 4)
    for bits in (1, 17):
        with pytest.raises(RecipeError, match=f"2..16, got {bits}"):
            step_size(torch.ones(2, 2), bits)
    for percentile in (0.0, 100.1, float("nan")):
        with pytest.raises(RecipeError, match="percentile"):
            step_size(torch.ones(2, 2), 4, percentile)
    for step in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(RecipeError, match="step size"):
            nearest(torch.ones(2, 2), step, 4)


def test_gradient_scale_is_absolute_and_one_at_zero() -> None:
    levels = torch.tensor([[-2, 0, 3]], dtype=torch.int16)
    assert gradient_scale(Clustered(levels, 3, step=0.5)).tolist() == [[1.0, 1.0, 1.5]]
    levels = torch.tensor([[-1, 0, 1]], dtype=torch.int16)
    ternary = Clustered(levels, 2, codebook=(-0.5, 0.0, 2.0), lowest=-1)
    assert gradient_scale(ternary).tolist() == [[0.5, 1.0, 2.0]]
    assert ternary.values().tolist() == [[-0.5, 0.0, 2.0]]
