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
