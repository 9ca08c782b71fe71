"""Small networks of segments, and data for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.multitask import Paths, SegmentNet, SharedHead, all_batches, random_paths

NAMES = ("cars", "birds", "flowers")
CLASSES = 3


def block(layer: int) -> nn.Module:
    """A convolution with normalisation; the first takes pictures of one channel."""
    return nn.Sequential(nn.Conv2d(1 if layer == 0 else 4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))


def after(layer: int) -> nn.Module:
    """Rectified; behind the last layer pooled to a vector."""
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()) if layer == 1 else nn.ReLU()


def paths(names: Any = NAMES, seed: int = 0) -> Paths:
    return random_paths(names, layers=2, modules=4, per_layer=2, seed=seed)


def net(found: Paths | None = None, *, shared_head: bool = False, seed: int = 0, **options: Any) -> SegmentNet:
    """Two layers of four segments, two in each layer of a path."""
    torch.manual_seed(seed)
    found = found or paths()
    if shared_head:
        heads: Any = SharedHead(16, dict.fromkeys(found, CLASSES))
    else:
        heads = {name: nn.Linear(16, CLASSES) for name in found}
    made = SegmentNet(block, found, heads, **({"residual": True, "after": after} | options))
    for part in made.modules():  # as after some training
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    return made


def loaders(
    names: Any = NAMES, batches: int = 3, size: int = 16, seed: int = 0
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Noise with a bright row, whose place says the class; each task has its rows in another order."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for number, name in enumerate(names):
        found[name] = []
        for _ in range(batches):
            y = torch.randint(CLASSES, (size,), generator=draw)
            x = torch.randn(size, 1, 6, 6, generator=draw)
            x[torch.arange(size), 0, 2 * ((y + number) % CLASSES)] += 2
            found[name].append((x, y))
    return found


def batches(**options: Any) -> list[Any]:
    return all_batches(loaders(**options))
