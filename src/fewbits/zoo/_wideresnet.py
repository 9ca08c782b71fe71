"""Wide ResNets for 32x32 images (Zagoruyko and Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

from torch import Tensor, nn

from fewbits.zoo.initialise import he_normal


class WideBlock(nn.Module):
    """BN-ReLU-conv twice, plus the shortcut: the input, or a 1x1 convolution where the shape changes.

    Where the shape changes the shortcut starts behind the first ReLU, as in the authors' network.
    """

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False)
        self.shortcut = None if before == after else nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        out = self.conv2(self.dropout(self.relu2(self.bn2(self.conv1(active)))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-depth-width: three stages of ``(depth - 4) / 6`` blocks with ``16, 32, 64`` x ``width`` channels.

    Shapes: [N, 3, H, W] -> [N, classes].
    """

    def __init__(self, depth: int, width: int, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 4, got {depth}")
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.layer1 = _stage(blocks, 16, 16 * width, 1, dropout)
        self.layer2 = _stage(blocks, 16 * width, 32 * width, 2, dropout)
        self.layer3 = _stage(blocks, 32 * width, 64 * width, 2, dropout)
        self.bn = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64 * width, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(self.flatten(self.pool(self.relu(self.bn(x)))))


def _stage(blocks: int, before: int, after: int, stride: int, dropout: float) -> nn.Sequential:
    first = WideBlock(before, after, stride, dropout)
    return nn.Sequential(first, *(WideBlock(after, after, 1, dropout) for _ in range(blocks - 1)))


class WRN22_8(WideResNet):  # noqa: N801 - the field writes WRN-22-8
    """WRN-22-8: 17.2 million parameters."""

    def __init__(self, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__(22, 8, classes, dropout)


class WRN28_8(WideResNet):  # noqa: N801 - the field writes WRN-28-8
    """WRN-28-8: 23.4 million parameters."""

    def __init__(self, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__(28, 8, classes, dropout)
