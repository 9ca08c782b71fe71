"""What ``evaluate`` may return: anything else is refused before hours are spent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from later import Net, batches, recipe

import fewbits as fb
from fewbits.errors import FewbitsError
from fewbits.task import accuracy


def test_a_share_is_not_taken_for_percent() -> None:
    train = batches()
    budget = recipe(max_drop=1.0, pilots=0, tries=2, assign={"method": "ecq", "bits": 4})
    with pytest.raises(FewbitsError, match="percent"):
        fb.compress(Net(), train, evaluate=lambda net: accuracy(net, train) / 100, recipe=budget)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan")),
        pytest.param(float("-inf")),
        pytest.param(None),
        pytest.param(torch.ones(2)),
    ],
    ids=["nan", "infinity", "none", "two"],
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(FewbitsError, match="evaluate"):
        fb.compress(Net(), batches(), evaluate=lambda net: value, recipe=recipe())
