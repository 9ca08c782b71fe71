"""MobileNetV2 for 32x32 images (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

from torch import Tensor, nn

from fewbits.zoo.initialise import he_normal

# Expansion, output channels, blocks, stride of the first block: table 2 of the paper, with the stem and
# the first two reductions at stride 1, since a CIFAR image is seven times smaller than an ImageNet one.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection, plus a shortcut where the stride is 1.

    The shortcut is a 1x1 convolution with BatchNorm where the channels change: the CIFAR variant that the
    pruning papers use, in which a prunable shortcut can collapse.
    """

    def __init__(self, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * before
        self.conv1 = nn.Conv2d(before, hidden, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, hidden, kernel_size=3, stride=stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, after, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module | None = None
        if stride == 1 and before == after:
            self.shortcut = nn.Identity()
        elif stride == 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, kernel_size=1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out if self.shortcut is None else out + self.shortcut(x)


class MobileNetV2(nn.Module):
    """17 inverted residuals between a 3x3 stem and a 1x1 head: 2,296,922 parameters.

    Shapes: [N, 3, H, W] -> [N, classes].
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu1 = nn.ReLU()
        blocks = []
        channels = 32
        for expansion, width, count, stride in STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(channels, width, expansion, stride if i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(channels, 1280, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(1280, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu1(self.bn1(self.conv1(x))))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.linear(self.flatten(self.pool(x)))
