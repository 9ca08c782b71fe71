"""What every case shares: a small network with pictures to train on, and the mark of what fails today."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import FewbitsError
from fewbits.recipe import Recipe, make

Batches = list[tuple[Tensor, Tensor]]
SILENT = pytest.fail.Exception
"""What a test raises that waits for an error in vain."""


def later(reason: str, *raises: type[BaseException]) -> pytest.MarkDecorator:
    """Fails today, by one of these errors; passing is news, and the mark must go."""
    return pytest.mark.xfail(strict=True, reason=reason, raises=raises or AssertionError)


class Net(nn.Module):
    """One convolution, averaged, and a head of four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.a(x)).mean((2, 3)))


def batches(count: int = 6, size: int = 8) -> Batches:
    """Noise with a brighter place for each of four classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count * size) % 4
    x = torch.randn(len(y), 3, 8, 8, generator=generator) * 0.5
    for i, k in enumerate(y.tolist()):
        x[i, k % 3, k : k + 3] += 2
    return list(zip(x.split(size), y.split(size), strict=True))


def recipe(**changes: Any) -> Recipe:
    """Plain ECQ for an epoch at a fixed lambda."""
    values = {"train": {"epochs": 1, "lr": 1e-3}, "rounds": 2, "assign": {"method": "ecq", "bits": 4, "lam": 0.1}}
    return make(values | changes)


def said(model: nn.Module, train: Any, **options: Any) -> str | None:
    """What compressing says when it refuses; ``None`` where it works. Errors of other kinds are not caught."""
    try:
        fb.compress(model, train, recipe=options.pop("recipe", recipe()), **options)
    except FewbitsError as error:
        return str(error)
    return None
