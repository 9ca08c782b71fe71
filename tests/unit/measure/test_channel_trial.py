"""A removal that is tried out: outputs of any kind are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewbits.channels import dependencies
from fewbits.channels._trial import sound


class Masked(nn.Module):
    """Gives a mask and something empty beside its outputs; with ``fixed``, its outputs tell how wide it is."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.first, self.last, self.fixed = nn.Linear(4, 6), nn.Linear(6, 3), fixed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.first(x).relu()
        scale = self.first.out_features if self.fixed else 1
        return self.last(hidden) * scale, x > 0, x[:0]


def test_masks_and_empty_outputs_are_compared_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4)
    for fixed in (False, True):
        model = Masked(fixed)
        assert sound(model, dependencies(model, (4,)), x) is not fixed
