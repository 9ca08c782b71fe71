"""Attention and gated units as foreign libraries write them, in networks that ``torch.fx`` cannot trace."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Heads(nn.Module):
    """Self-attention whose number of heads is open; groups of query heads may share keys and values.

    Args:
        share: query heads for each head of keys and values. fused: whether torch's own attention computes.
        native: whether that one repeats keys and values itself. bias: whether each head adds numbers of its own.
    """

    def __init__(
        self,
        width: int = 8,
        heads: int = 4,
        size: int = 3,
        share: int = 1,
        *,
        fused: bool = True,
        native: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.share, self.fused, self.native = size, share, fused, native
        self.q = nn.Linear(width, heads * size)
        self.k, self.v = (nn.Linear(width, heads // share * size) for _ in range(2))
        self.out = nn.Linear(heads * size, width)
        self.bias = nn.Parameter(torch.randn(1, heads, 1, 1)) if bias else None

    def repeated(self, x: Tensor) -> Tensor:
        n, heads, t, size = x.shape
        return x[:, :, None].expand(n, heads, self.share, t, size).reshape(n, heads * self.share, t, size)

    def forward(self, x: Tensor) -> Tensor:
        places = (*x.shape[:-1], -1, self.size)
        q, k, v = (layer(x).view(places).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.share > 1 and not self.native:
            k, v = self.repeated(k), self.repeated(v)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, self.bias, scale=0.5, enable_gqa=self.native)
        else:
            y = torch.softmax(q @ k.mT * 0.5, -1) @ v
        return self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


class Counted(nn.Module):
    """Self-attention that writes its number of heads as an attribute, in the manner of timm.

    Args:
        scaled: whether numbers of all heads are asked of the input, which has as many; then no head can go.
    """

    def __init__(self, width: int = 12, heads: int = 4, *, scaled: bool = False, honest: bool = True) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, width // heads, width
        self.dim, self.scaled, self.honest = width, scaled, honest
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        whole = width if self.scaled else self.attn_dim if self.honest else self.dim
        return self.proj(y.reshape(n, t, whole))


class Gated(nn.Module):
    """The MLP of Llama-like networks: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, width: int = 8, units: int = 12) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(width, units), nn.Linear(width, units), nn.Linear(units, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """A layer of a transformer, which looks at its data before it computes: no tracer goes through.

    Takes ``[n, places, 5]``.
    """

    def __init__(self, heads: nn.Module, mlp: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.embed, self.heads, self.mlp = nn.Linear(5, width), heads, mlp
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        if bool(torch.isnan(x).any()):
            raise ValueError("NaN")
        x = self.embed(x)
        x = x + self.heads(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.head(x.mean(1))


class Writing(nn.Module):
    """A convolutional network with normalisation that writes its data into a copy, which ``torch.fx`` does not follow.

    Takes ``[n, 2, 8, 8]``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        copy = torch.zeros_like(x)
        copy[:] = x
        x = torch.relu(self.norm(self.conv(copy)))
        return self.head(torch.relu(self.second(x)).mean((2, 3)))
