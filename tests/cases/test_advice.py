"""Errors that say what to do: it can be done."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from later import batches, recipe
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import UnsupportedError
from fewbits.recipe import Measure


class Excited(nn.Module):
    """Squeeze and excitation: a product of two tensors that carry data."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.f, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 16), nn.Linear(16, 4)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.head((x * self.gate(self.f(x.mean((2, 3))))[..., None, None]).mean((2, 3)))


def test_the_options_that_an_error_names_exist() -> None:
    with pytest.raises(UnsupportedError) as caught:
        fb.compress(Excited(torch.sin), batches(), recipe=recipe(assign={"method": "ecqx", "lam": 0.1}))
    named = set(re.findall(r"(\w+)=", str(caught.value)))
    assert named == {"operations", "probe"}
    assert named <= {*inspect.signature(fb.compress).parameters, *Measure.model_fields}


def test_relevance_goes_through_a_gate() -> None:
    fb.compress(Excited(torch.sigmoid), batches(), recipe=recipe(assign={"method": "ecqx", "lam": 0.1}))
