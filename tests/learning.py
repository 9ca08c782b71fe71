"""What tests of learning rules share: batches as a rule meets them, and networks in parts and whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.train.rules import Batch, Rule, blocks_of


def batch_of(network: nn.Module, inputs: Tensor, targets: Any, loss: Callable[..., Tensor] = F.cross_entropy) -> Batch:
    """A batch in float32 on one process, without the training loop."""

    def forward() -> tuple[Tensor, Tensor]:
        outputs = network(inputs)
        return outputs, loss(outputs, targets)

    return Batch(
        forward=forward,
        backward=lambda value: value.backward(),
        inputs=inputs,
        targets=targets,
        loss_of=lambda outputs: loss(outputs, targets),
        blocks=cache(partial(blocks_of, network)),
        computing=nullcontext,
        mean=lambda tensor: tensor,
    )


def directions(rule: Rule, network: nn.Module, batch: Batch, state: Any = None) -> dict[str, Tensor]:
    """What a rule leaves in ``.grad`` for one batch, by name; the network has none afterwards."""
    network.zero_grad()
    rule.update(network, batch, rule.init(network) if state is None else state)
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def backprops(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The gradients of the loss."""
    _, loss = batch.forward()
    pairs = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in pairs], allow_unused=True)
    return {name: g for (name, _), g in zip(pairs, found, strict=True) if g is not None}


def cosine(mine: dict[str, Tensor], theirs: dict[str, Tensor], name: str) -> float:
    """Of the angle between two directions of a weight."""
    return float(F.cosine_similarity(mine[name].flatten(), theirs[name].flatten(), dim=0))


class Functional(nn.Module):
    """Activations, pooling and shapes in the forward, as many people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3)
        self.third = nn.Linear(24, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        samples = x.size(0)
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.relu(self.second(x), inplace=True)
        x = x.view(samples, -1)
        x = F.dropout(torch.tanh(self.third(x)), 0.2, self.training)
        return self.last(x)


class Skipping(nn.Module):
    """Two convolutions, of which a shortcut goes around the second, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))


class Mixing(nn.Module):
    """Linear layers over places and over features, as in MLP-Mixer, for images ``[n, 1, 8, 8]``: rows are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.over_places = nn.Linear(8, 8)
        self.wide = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1)
        x = x + F.relu(self.over_places(x.transpose(1, 2)), inplace=True).transpose(1, 2)
        x = x + self.narrow(F.gelu(self.wide(x)))
        return self.head(x.mean(1))


def convolutional() -> nn.Module:
    """Layers of every kind one behind the other, for images ``[n, 1, 8, 8]``, 3 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Dropout(0.1),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def dense(widths: tuple[int, ...] = (5, 8, 6, 3), activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    """Linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])
