"""VGG-16 for 32x32 images (Simonyan and Zisserman 2015, arXiv:1409.1556, configuration D)."""

from __future__ import annotations

from torch import Tensor, nn

from fewbits.zoo.initialise import he_normal

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """The VGG16 of ECQx: 13 convolutions without BatchNorm, classifier 512-512-10.

    14,977,728 weights and 4,746 biases, the count behind the paper's 59,929.9 kB.

    Shapes: [N, 3, 32, 32] -> [N, classes].
    """

    def __init__(self, classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, classes),
        )
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.features(x)))


class VGG16BN(nn.Module):
    """VGG-16 with BatchNorm and growing dropout, after Liu and Deng 2015 (doi:10.1109/ACPR.2015.7486599).

    14,991,946 parameters; 92.25 % on CIFAR-10 with the weights named in ``docs/data.md``.

    Args:
        dropout: whether activations are dropped in training; a network of few weights does better without. The names of
            the weights are the same.

    Shapes: [N, 3, 32, 32] -> [N, classes].
    """

    def __init__(self, classes: int = 10, dropout: bool = True) -> None:
        super().__init__()
        if not isinstance(dropout, bool):
            raise ValueError(f"dropout is true or false, not {dropout!r}")
        layers: list[nn.Module] = []
        channels = 3
        for stage in STAGES:
            for i, width in enumerate(stage):
                conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                if i < len(stage) - 1:
                    layers.append(nn.Dropout((0.3 if width == 64 else 0.4) if dropout else 0.0))
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Dropout(0.5 if dropout else 0.0),
            nn.Linear(512, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(0.5 if dropout else 0.0),
            nn.Linear(512, classes),
        )
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.features(x)))
