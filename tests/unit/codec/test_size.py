"""How many bytes: near the entropy without structure, below it with, and little overhead."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.codec import encode, inspect
from fewbits.codec.coder import CODERS, Coder
from fewbits.plan import Clustered, Dense, Plan


def entropy(levels: np.ndarray) -> float:
    """Zero-order entropy in bytes."""
    _, counts = np.unique(levels, return_counts=True)
    share = counts / levels.size
    return float(-(counts * np.log2(share)).sum() / 8)


def independent(shape: tuple[int, ...], zeros: float, spread: float, bound: int) -> np.ndarray:
    chance = np.random.default_rng(1)
    levels = np.clip(np.round(chance.laplace(0, spread, shape)), -bound, bound)
    return (levels * (chance.random(shape) >= zeros)).astype(np.int16)


every_coder = pytest.mark.parametrize("coder", CODERS.values(), ids=lambda coder: coder.name)


@every_coder
@pytest.mark.parametrize(
    ("zeros", "spread", "bound"),
    [(0.0, 1.0, 7), (0.6, 1.5, 7), (0.95, 2.0, 7), (0.99, 2.0, 7), (0.5, 0.8, 1), (0.3, 20.0, 127)],
)
@pytest.mark.parametrize("shape", [(300, 400), (64, 32, 7, 7)])
def test_near_the_entropy_without_structure(
    coder: Coder, zeros: float, spread: float, bound: int, shape: tuple[int, ...]
) -> None:
    levels = independent(shape, zeros, spread, bound)
    size = len(coder.encode(levels, -bound, bound))
    assert size <= 1.02 * entropy(levels) + 64


@every_coder
def test_below_the_entropy_with_structure(coder: Coder) -> None:
    """Filters and channels that differ in their share of zeros, as in pruned networks."""
    chance = np.random.default_rng(2)
    keep = chance.random((64, 1, 1, 1)) * chance.random((1, 32, 1, 1)) > 0.3
    levels = (chance.integers(-3, 4, (64, 32, 3, 3)) * keep).astype(np.int16)
    assert len(coder.encode(levels, -7, 7)) < 0.85 * entropy(levels)


@every_coder
def test_small_tensors_pay_little(coder: Coder) -> None:
    levels = independent((10, 12), 0.7, 1.5, 7)
    assert len(coder.encode(levels, -7, 7)) <= entropy(levels) + 12


def test_overhead_of_ten_tensors() -> None:
    layers = {
        "conv1": (6, 1, 5, 5),
        "conv2": (16, 6, 5, 5),
        "fc1": (120, 256),
        "fc2": (84, 120),
        "fc3": (10, 84),
    }
    plan = Plan({})
    for name, shape in layers.items():
        levels = torch.from_numpy(independent(shape, 0.8, 1.5, 7))
        bias = torch.randn(shape[0], generator=torch.Generator().manual_seed(shape[0]))
        plan = plan.updated({f"{name}.weight": Clustered(levels, 4, step=0.1), f"{name}.bias": Dense(bias)})
    assert inspect(encode(plan)).overhead_bytes <= 160


def test_overhead_of_a_hundred_tensors() -> None:
    """Six bytes per tensor: names, shapes, steps and checksums together."""
    generator = torch.Generator().manual_seed(0)
    plan = Plan({})
    for block in range(20):
        width = 16 << block // 7
        norm = nn.BatchNorm2d(width).state_dict()
        prefix = f"layer{block // 7 + 1}.{block % 7}"
        levels = torch.from_numpy(independent((width, 16, 3, 3), 0.8, 1.5, 7))
        plan = plan.updated(
            {f"{prefix}.conv1.weight": Clustered(levels, 4, step=0.1 + block / 100)}
            | {
                f"{prefix}.bn1.{name}": Dense(torch.rand(t.shape, generator=generator))
                for name, t in norm.items()
                if t.dim()
            }
        )
    assert len(plan) == 100
    assert inspect(encode(plan)).overhead_bytes <= 600


def test_sparse_numbers_cost_what_they_hold() -> None:
    """A float tensor with 90 % zeros: some five bytes per non-zero for its value and its place."""
    chance = np.random.default_rng(3)
    values = chance.standard_normal(20_000) * (chance.random(20_000) < 0.1)
    data = encode(Plan({"w": Dense(torch.from_numpy(values).float())}))
    assert len(data) < 2000 * 5.5


def test_floats_that_hold_bfloat16_cost_half() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    assert len(encode(Plan({"w": Dense(values)}))) < 10_000 * 1.8
