"""Small networks that stand for kinds of other people's: what each has is what relevance must get right there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

WIDTH = 12


class Attention(nn.Module):
    """``nn.MultiheadAttention``, once with its weights asked for, and fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.MultiheadAttention(WIDTH, 3, batch_first=True)
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x, x, x, need_weights=True)[0]
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.head(x.mean(1))


class Formula(nn.Module):
    """A pre-norm block whose GELU is written out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.act, self.head = NewGELUActivation(), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.down(self.act(self.up(self.norm(x)))))[:, 0])


class NewGELUActivation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3))))


class Gated(nn.Module):
    """RMS normalisation by hand, rotated queries, grouped keys, and SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.q, self.kv = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up = nn.Linear(WIDTH, 20, bias=False), nn.Linear(WIDTH, 20, bias=False)
        self.down, self.head = nn.Linear(20, WIDTH, bias=False), nn.Linear(WIDTH, 4)
        self.register_buffer("angle", torch.linspace(0, 3, 6)[:, None] * torch.tensor([1.0, 0.3, 0.1]).repeat(1)[:1])

    def normed(self, x: Tensor) -> Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def rotated(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * self.angle.cos() + torch.cat([-b, a], -1) * self.angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        y = self.normed(x)
        q = self.rotated(self.q(y).unflatten(-1, (2, 6)).transpose(1, 2))
        k, v = (t.unsqueeze(1) for t in self.kv(y).chunk(2, -1))
        y = F.scaled_dot_product_attention(q, self.rotated(k), v, enable_gqa=True)
        x = x + y.transpose(1, 2).flatten(2)
        y = self.normed(x)
        return self.head((x + self.down(F.silu(self.gate(y)) * self.up(y))).mean(1))


class Squeezing(nn.Module):
    """Depthwise convolutions, shuffled channels, hard activations, and a gate per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.shuffle, self.point, self.head = nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(self.stem(x)))
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(F.adaptive_avg_pool2d(F.relu6(self.point(self.shuffle(x))), 1).flatten(1))


class Recurrent(nn.Module):
    """An LSTM and a GRU, one on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, 6, batch_first=True, bidirectional=True)
        self.gru, self.head = nn.GRU(12, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0][:, -1])


class Skipping(nn.Module):
    """A U-Net of one level: a transposed convolution, and a skip that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.LeakyReLU(0.1))
        self.low, self.up = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.down(x)
        up = self.up(F.elu(self.low(wide)))
        return self.head(torch.cat([wide, up], 1)).mean((2, 3))


class TwoInputs(nn.Module):
    """An image, and numbers that scale it and are joined to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense, self.head = nn.Conv2d(2, 6, 3), nn.Linear(5, 6), nn.Linear(12, 4)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        seen = F.max_pool2d(F.relu(self.conv(image)), 4).flatten(1)
        known = torch.tanh(self.dense(numbers))
        return self.head(torch.cat([seen * known, known], 1))


class Reweighted(nn.Module):
    """Weights that are computed before they are used: weight_norm, and standardised by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.normed, self.conv = weight_norm(nn.Conv2d(2, 6, 3)), nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.normed(x))
        w = self.conv.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        return self.head(F.softplus(F.conv2d(x, w, self.conv.bias)).mean((2, 3)))


class Grouped(nn.Module):
    """Group and instance normalisation, and an addition to a part of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3), nn.InstanceNorm2d(6, affine=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(x)).clone()
        y[:, :3] += x[:, 3:, 1:-1, 1:-1]
        return self.head(F.mish(y).mean((2, 3)))


class Tokens(nn.Module):
    """Embedded tokens and places, a table of distances through a small network, and the first layer used again."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, WIDTH), nn.Embedding(6, WIDTH)
        self.mixed, self.bias, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(1, 1), nn.Linear(WIDTH, 4)
        self.register_buffer("distances", torch.arange(6.0)[:, None])

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        x = F.relu(self.mixed(x)) + torch.sigmoid(self.bias(self.distances))
        return self.head(self.mixed(x).amax(1))


def images(generator: torch.Generator) -> dict[str, Tensor]:
    return {"": torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=generator)}


def sequences(generator: torch.Generator) -> dict[str, Tensor]:
    return {"": torch.randn(3, 6, WIDTH, dtype=torch.float64, generator=generator)}


def both(generator: torch.Generator) -> dict[str, Tensor]:
    numbers = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    return {"image": images(generator)[""], "numbers": numbers}


def tokens(generator: torch.Generator) -> dict[str, Tensor]:
    return {"tokens": torch.randint(11, (3, 6), generator=generator)}


STAND_INS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], dict[str, Tensor]]]] = {
    "attention": (Attention, sequences),
    "formula": (Formula, sequences),
    "gated": (Gated, sequences),
    "squeezing": (Squeezing, images),
    "recurrent": (Recurrent, sequences),
    "skipping": (Skipping, images),
    "two inputs": (TwoInputs, both),
    "reweighted": (Reweighted, images),
    "grouped": (Grouped, images),
    "tokens": (Tokens, tokens),
}


def stand_in(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """One of them in float64 and evaluation mode, in which nothing is trivial, and its inputs."""
    make, inputs = STAND_INS[name]
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    model = make().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() < 2:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.add_(0.2 * torch.randn(buffer.shape, generator=generator))
    return model, inputs(generator)


def run(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    found: Tensor = model(inputs[""]) if "" in inputs else model(**inputs)
    return found
