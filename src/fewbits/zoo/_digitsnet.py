"""The demo's network: small enough to train on a laptop's processor in seconds."""

from __future__ import annotations

from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Two convolutions with BatchNorm and two linear layers for 8x8 digits: 151,072 weights.

    Shapes: [N, 1, 8, 8] -> [N, classes].
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
