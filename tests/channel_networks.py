"""Small networks in which channels depend on each other, drawn at random or built around one operation."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.channel_masks import ChannelMasks
from fewbits.channels import dependencies
from fewbits.channels.surgery import prune_channels, zero_channels


def conv(inputs: int, outputs: int, groups: int = 1, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Drawn(nn.Module):
    """A chain of blocks by their names, then a flattened or averaged head."""

    def __init__(self, blocks: list[str], width: int, flat: bool) -> None:
        super().__init__()
        self.stem, self.names, self.flat = conv(2, width), blocks, flat
        parts, now = [], width
        for name in blocks:
            if name in ("residual", "concat"):
                parts.append(nn.ModuleList([conv(now, now, bias=True), nn.Conv2d(now, now, 1)]))
                now *= 2 if name == "concat" else 1
            elif name == "gate":
                parts.append(nn.ModuleList([nn.Conv2d(now, 3, 1), nn.Conv2d(3, now, 1)]))
            elif name == "depthwise":
                parts.append(nn.ModuleList([conv(now, now, groups=now), nn.Conv2d(now, now, 1)]))
            elif name == "grouped":
                parts.append(nn.ModuleList([conv(now, 2 * now, groups=2), nn.Conv2d(2 * now, now, 1)]))
            elif name == "split":
                parts.append(nn.ModuleList([conv(now, 2 * now)]))
            else:
                parts.append(nn.ModuleList([conv(now, now + 2), nn.MaxPool2d(2, 1, 1)]))
                now += 2
        self.parts = nn.ModuleList(parts)
        self.head = nn.Linear(now * 16 if flat else now, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name, part in zip(self.names, self.parts, strict=True):
            if name == "residual":
                x = torch.relu(x + part[1](part[0](x)))
            elif name == "concat":
                x = torch.cat([part[1](x), part[0](x)], dim=1)
            elif name == "gate":
                x = x * torch.sigmoid(part[1](F.relu(part[0](x.mean((2, 3), keepdim=True)))))
            elif name == "split":
                a, b = part[0](x).chunk(2, dim=1)
                x = x + a * b
            else:
                for layer in part:
                    x = layer(x)
        x = F.adaptive_avg_pool2d(x, 4)
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3)))


class Attention(nn.Module):
    """Self-attention written with linear layers, and an MLP. ``heads`` and ``size`` of the reshape: a number, or -1."""

    def __init__(self, heads: int, size: int, width: int = 8, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.size, self.fused = heads, size, fused
        self.embed = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, 12) for _ in range(3))
        self.out = nn.Linear(12, width)
        self.up, self.down = nn.Linear(width, 16), nn.Linear(16, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        n, t = y.shape[0], y.shape[1]
        q, k, v = (layer(y).view(n, t, self.heads, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * 0.5, dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(x.mean(1))


def removal(model: nn.Module, shape: tuple[int, ...], seed: int, share: float = 0.5) -> ChannelMasks:
    """A random removal that leaves every layer at least one channel."""
    found = dependencies(model, shape)
    order = torch.randperm(found.count, generator=torch.Generator().manual_seed(seed)).tolist()
    removed: list[int] = []
    for unit in order[: round(share * found.count)]:
        kept = found.without([*removed, unit]).kept
        if all(bool(masks[0].any()) for name, masks in kept.items() if name in found.outputs and masks[0] is not None):
            removed.append(unit)
    return found.without(removed)


@torch.no_grad()
def disagreement(model: nn.Module, channels: ChannelMasks, inputs: Tensor) -> tuple[float, nn.Module]:
    """How far the narrowed network is from the silenced one, relative to its largest output; and the narrowed one."""
    small, zeroed = copy.deepcopy(model), copy.deepcopy(model)
    prune_channels(small, channels)
    zero_channels(zeroed, channels)
    wanted, found = zeroed(inputs), small(inputs)
    assert wanted.shape == found.shape
    return float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1e-12)), small
