"""ResNets for CIFAR with weight-free shortcuts (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from fewbits.zoo.initialise import he_normal


@final
class PadShortcut(nn.Module):
    """The shortcut "option A": every second pixel, new channels zero. Linear and without weights.

    The zeros are split evenly before and after the old channels.

    Shapes: [N, before, H, W] -> [N, after, ceil(H / 2), ceil(W / 2)].
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        first = (after - before) // 2
        self.pad = nn.ZeroPad3d((0, 0, 0, 0, first, after - before - first))  # a layer, which can lose channels

    def forward(self, x: Tensor) -> Tensor:
        return self.pad(x[:, :, ::2, ::2])


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus the shortcut, then ReLU."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else PadShortcut(before, after)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of ``(depth - 2) / 6`` blocks with 16, 32 and 64 channels.

    Shapes: [N, 3, H, W] -> [N, classes].
    """

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 2, got {depth}")
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks, 16, 16, stride=1)
        self.layer2 = _stage(blocks, 16, 32, stride=2)
        self.layer3 = _stage(blocks, 32, 64, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def _stage(blocks: int, before: int, after: int, stride: int) -> nn.Sequential:
    first = BasicBlock(before, after, stride)
    return nn.Sequential(first, *(BasicBlock(after, after, stride=1) for _ in range(blocks - 1)))


class ResNet20(ResNet):
    """269,722 parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(20, classes)


class ResNet32(ResNet):
    """464,154 parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(32, classes)


class ResNet44(ResNet):
    """658,586 parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(44, classes)


class ResNet56(ResNet):
    """853,018 parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(56, classes)
