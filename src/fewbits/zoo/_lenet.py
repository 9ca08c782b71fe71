"""The two LeNets on which pruning and quantization papers report MNIST."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet300100(nn.Module):
    """Fully connected 784-300-100-10 (LeCun et al. 1998): 266,200 weights and 410 biases.

    Shapes: [N, ...] with ``inputs`` values per sample -> [N, classes].
    """

    def __init__(self, inputs: int = 784, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs, 300),
            nn.ReLU(),
            nn.Linear(300, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LeNet5(nn.Module):
    """The LeNet-5 of the compression literature, 20-50-500 with ReLU: 430,500 weights and 580 biases.

    This is Caffe's variant, the one of Han et al. 2015 (arXiv:1506.02626), not the 60,000-weight original.

    Shapes: [N, channels, size, size] -> [N, classes]; ``size`` is at least 16.
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10) -> None:
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"size must be at least 16, got {size}")
        self.features = nn.Sequential(
            nn.Conv2d(channels, 20, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(50 * side * side, 500),
            nn.ReLU(),
            nn.Linear(500, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
