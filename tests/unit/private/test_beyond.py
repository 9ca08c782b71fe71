"""What a refused network would cost is counted from one pass, and published times are those of its own rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewbits import zoo
from fewbits.private.beyond import LOOK_UP_SECONDS, PUBLISHED_RUNS, beyond


def test_published_networks_have_the_bootstraps_that_are_counted() -> None:
    found = beyond(zoo.build("resnet-20"), torch.randn(1, 3, 32, 32))
    assert {run.bootstraps for run in PUBLISHED_RUNS if run.network == "ResNet-20"} == {found.bootstraps}
    assert found.ckks_seconds == pytest.approx((300, 1145))  # the published times themselves
    assert found.numbers == 7 * 16 * 32**2 + 6 * 32 * 16**2 + 6 * 64 * 8**2  # by hand


def test_functions_and_maxima_are_counted_one_by_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 40, 3, padding=1), nn.Linear(40 * 16 * 16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.max_pool2d(self.first(x).relu(), 2)
            return torch.tanh(self.last(x.flatten(1)))

    model = Net().train()
    found = beyond(model, torch.randn(4, 3, 32, 32))
    wide, pooled = 40 * 32 * 32, 40 * 16 * 16  # 40,960 numbers are two ciphertexts of 32,768
    assert found.bootstraps == 2 + 2 * 1 + 1  # a maximum of four numbers is two of two
    assert found.activations == 1 + 2 + 1
    assert found.numbers == wide + 2 * pooled + 5
    assert found.tfhe_seconds == pytest.approx(tuple(found.numbers * each for each in LOOK_UP_SECONDS))
    assert model.training
    assert beyond(nn.Linear(3, 2), torch.randn(1, 3)).bootstraps == 0
