"""The networks on which learning rules are compared: three convolutions and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Triangle(nn.Module):
    """``max(0, x - mean of x over the channels) ** power`` (Coates et al. 2011): who is above the average speaks.

    Shapes: [N, C, ...] -> the same.
    """

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        above = torch.relu(x - x.mean(1, keepdim=True))
        return above if self.power == 1 else above**self.power

    def extra_repr(self) -> str:
        return f"power={self.power:g}"


class ConvNet(nn.Module):
    """Convolutions of 5, 3 and 3 pixels without padding, each with an activation and 2x2 average pooling, and a head.

    With its defaults the network of arXiv 2212.04614 for all rules: 100, 196 and 400 filters, 889,500 weights in
    convolutions. With ``activation: triangle``, ``normalise: true`` and ``sparsity: 0.99`` that of Hebbian learning
    (Miconi, arXiv 2107.01729).

    Args:
        filters: of each convolution; at most three.
        activation: ``relu``, ``tanh`` or ``triangle``.
        normalise: whether every sample gets mean zero and variance one before each convolution.
        sparsity: share of the weights of all convolutions but the first that are zero from the beginning.

    Shapes: [N, channels, size, size] -> [N, classes].
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        filters: Sequence[int] = (100, 196, 400),
        activation: str = "relu",
        normalise: bool = False,
        sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in (*ACTIVATIONS, "triangle"):
            raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, triangle; got {activation!r}")
        if not 1 <= len(filters) <= 3:
            raise ValueError(f"filters are those of one to three convolutions, got {list(filters)}")
        parts: list[nn.Module] = []
        for number, (count, kernel) in enumerate(zip(filters, (5, 3, 3), strict=False)):
            if normalise:
                parts.append(nn.GroupNorm(1, channels, affine=False))
            conv = nn.Conv2d(channels, count, kernel)
            if sparsity and number:
                with torch.no_grad():
                    conv.weight.mul_(torch.rand_like(conv.weight) >= sparsity)
            parts += [conv, Triangle() if activation == "triangle" else ACTIVATIONS[activation](), nn.AvgPool2d(2)]
            channels, size = count, (size - kernel + 1) // 2
        if size < 1:
            raise ValueError(f"images are too small for {len(filters)} convolutions")
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class SoftHebbNet(nn.Module):
    """The network of SoftHebb (Journe et al. 2023, arXiv 2209.11883): 96, 384 and 1,536 filters.

    Each layer: normalisation over the batch, a convolution of 5, 3 and 3 pixels without bias, a triangle with a power
    of its own, and pooling that halves the sides. Weights begin with a length of ``radius`` per channel, from which the
    rule leads them to one.

    Shapes: [N, channels, size, size] -> [N, classes]; ``size`` is at least 8.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        filters: Sequence[int] = (96, 384, 1536),
        powers: Sequence[float] = (0.7, 1.4, 1.0),
        radius: float = 25.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(filters) != 3 or len(powers) != 3:
            raise ValueError(f"three filters and three powers, got {list(filters)} and {list(powers)}")
        parts: list[nn.Module] = []
        for number, (count, power) in enumerate(zip(filters, powers, strict=True)):
            kernel = 5 if number == 0 else 3
            conv = nn.Conv2d(channels, count, kernel, padding=kernel // 2, padding_mode="reflect", bias=False)
            nn.init.normal_(conv.weight, std=radius * conv.weight[0].numel() ** -0.5)
            pool = nn.AvgPool2d(2) if number == 2 else nn.MaxPool2d(4, stride=2, padding=1)
            parts += [nn.BatchNorm2d(channels, affine=False), conv, Triangle(power), pool]
            channels, size = count, size // 2
        if size < 1:
            raise ValueError("images of at least 8 pixels are needed")
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels * size * size, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
