"""What makes a task's outputs of the last layer's: a head for each task, or one head in slices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import RecipeError
from fewbits.multitask._names import checked


class SharedHead(nn.Module):
    """One linear layer over the classes of all tasks; each task reads its own rows, as in PaRT's released code.

    Only a task's rows are computed, so its outputs do not depend, in any bit, on how many others there are.

    Args:
        features: that come in. classes: by task, in the order of their rows.
    """

    def __init__(self, features: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        names = checked(classes)
        if min(classes.values()) < 1:
            raise RecipeError(f"every task has one class at least, got {dict(classes)}")
        self.linear = nn.Linear(features, sum(classes.values()))
        self.rows = nn.Module()
        begin = 0
        for name in names:
            self.rows.register_buffer(name, torch.tensor([begin, begin + classes[name]]))
            begin += classes[name]

    def forward(self, x: Tensor, task: str) -> Tensor:
        begin, end = getattr(self.rows, task).tolist()
        return F.linear(x, self.linear.weight[begin:end], self.linear.bias[begin:end])
