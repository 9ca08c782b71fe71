"""Batches that do not fit, wherever they stand: the error names the batch."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from later import Net, batches, said
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import DataError

TRAIN = batches()
LAST = TRAIN[4][1]


class Normalised(nn.Module):
    """With statistics over samples, which one sample does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.norm, self.head = nn.Linear(192, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.l(x.flatten(1)))))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param((TRAIN[4][0], torch.full_like(LAST, 4)), id="class 4 of 4"),
        pytest.param((TRAIN[4][0], torch.full_like(LAST, -1)), id="class -1"),
        pytest.param((TRAIN[4][0], torch.full_like(LAST, -100)), id="-100"),
        pytest.param((TRAIN[4][0][:0], LAST[:0]), id="empty"),
        pytest.param((TRAIN[4][0] * float("nan"), LAST), id="nan"),
    ],
)
def test_a_bad_batch_is_named(bad: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(DataError, match=r"batch [45]\b"):
        fb.compress(Net(), [*TRAIN[:4], bad, *TRAIN[5:]])


def test_one_sample_under_batch_normalisation_is_named() -> None:
    alone = TRAIN[0][0][:1], TRAIN[0][1][:1]
    message = said(Normalised(), [*TRAIN, alone])
    assert message is None or re.search(r"batch [67]\b", message)


@pytest.mark.parametrize(
    "train",
    [
        pytest.param([(x, y.int()) for x, y in TRAIN], id="int32"),
        pytest.param([(x.clamp(0, 255).byte(), y) for x, y in TRAIN], id="bytes"),
        pytest.param([(x.numpy(), y.numpy()) for x, y in TRAIN], id="numpy"),
        pytest.param([{"x": x, "y": y} for x, y in TRAIN], id="dict"),
        pytest.param([(x, y, y) for x, y in TRAIN], id="three"),
    ],
)
def test_batches_of_other_kinds_work_or_are_refused_in_a_sentence(train: Any) -> None:
    message = said(Net(), train)
    assert message is None or "batch" in message
