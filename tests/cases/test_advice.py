"""Errors that say what to do: it can be done."""

from __future__ import annotations

import inspect
import re

import torch
import torch.nn.functional as F
from later import batches, later, recipe
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import UnsupportedError
from fewbits.recipe import Measure


class Excited(nn.Module):
    """Squeeze and excitation: a product of two signals, which has no relevance rule by default."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.f, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.f(x.mean((2, 3))))[..., None, None]
        return self.head((x * gate).mean((2, 3)))


@later("the option is one of relevance alone, which neither compress nor a recipe hands on")
def test_the_options_that_an_error_names_exist() -> None:
    try:
        fb.compress(Excited(), batches(), target="2 KB")
    except UnsupportedError as error:
        named = set(re.findall(r"(\w+)=", str(error)))
        assert named <= {*inspect.signature(fb.compress).parameters, *Measure.model_fields}


@later("relevance reads the graph of operations that it knows, and a product of two signals is none", UnsupportedError)
def test_relevance_goes_through_a_gate() -> None:
    fb.compress(Excited(), batches(), recipe=recipe(assign={"method": "ecqx", "lam": 0.1}))
