"""Networks that encrypted programs can compute."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Residual(nn.Module):
    """A convolution with stride, a residual sum around squares, pooling, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.second = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)) ** 2
        x = x + torch.square(self.second(x))
        return self.head(x.mean((2, 3)))


class Cubic(nn.Module):
    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x**self.power - 0.5 * x * x + x)


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), Square()]
    return nn.Sequential(*layers[:-1])
