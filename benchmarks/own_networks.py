"""Networks as people write them by hand, for the list of ``networks.yaml``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Recurrent(nn.Module):
    """A two-layer LSTM or GRU in both directions; the mean over time decides."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.cell = getattr(nn, cell)(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0].mean(1))


class Encoder(nn.Module):
    """``nn.TransformerEncoder`` with its layers as they come."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[:, 0])


class UNet(nn.Module):
    """Two levels with a transposed convolution and a skip; ``[n, classes, H, W]``."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.low = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.down(x)
        return self.head(torch.cat([wide, self.up(self.low(wide))], 1))


class TwoInputs(nn.Module):
    """An image and a row of numbers, joined late."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense, self.head = nn.Conv2d(2, 6, 3), nn.Linear(5, 6), nn.Linear(12, 4)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        seen = F.adaptive_avg_pool2d(F.relu(self.conv(image)), 1).flatten(1)
        return self.head(torch.cat([seen, torch.tanh(self.dense(numbers))], 1))


class Blocks(nn.Module):
    """Blocks of a transformer over ``[n, tokens, width]``, with softmax, GELU and normalisation as plain functions."""

    def __init__(self, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "before": nn.LayerNorm(width), "projections": nn.Linear(width, 3 * width),
                "out": nn.Linear(width, width), "between": nn.LayerNorm(width),
                "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
            })
            for _ in range(layers)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            q, k, v = (
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for part in block["projections"](block["before"](x)).chunk(3, -1)
            )
            seen = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
            x = x + block["out"](seen.transpose(1, 2).flatten(2))
            x = x + block["down"](F.gelu(block["up"](block["between"](x))))
        return x


class Keywords(nn.Module):
    """Depthwise separable convolutions over ``[n, 10, 49]`` features, as in Hello Edge (arXiv 1711.07128), DS-CNN S.

    With one padding on both sides of each axis, where the paper's framework pads unevenly.
    """

    def __init__(self, classes: int = 12, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, width, (4, 10), 2, (1, 4), bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.layers = nn.Sequential(*(separable(width) for _ in range(layers)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.layers(self.first(x.reshape(-1, 1, 10, 49)))
        return self.head(F.adaptive_avg_pool2d(seen, 1).flatten(1))


def separable(width: int) -> nn.Sequential:
    """A convolution of each channel alone, and one of all channels at each place."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
    )  # fmt: skip
