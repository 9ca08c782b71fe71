"""Networks with squares for encrypted inference on MNIST, and how they are trained."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.unit import Place, Row
from fewbits.data import load

BATCH = 128
Pairs = tuple[Tensor, Tensor]


class Held(Protocol):
    """What keeps a pattern of weights: ``gradients(share of the training)`` before a step, ``weights()`` after it."""

    def gradients(self, share: float) -> None: ...
    def weights(self) -> None: ...


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def mlp(widths: list[int], squares: int) -> nn.Module:
    """784 inputs, hidden layers of these widths, ten classes; only behind the first ``squares`` of them is a square."""
    layers: list[nn.Module] = [nn.Flatten()]
    for place, (inputs, outputs) in enumerate(zip([784, *widths], [*widths, 10], strict=True)):
        layers.append(nn.Linear(inputs, outputs))
        if place < min(squares, len(widths)):
            layers.append(Square())
    return nn.Sequential(*layers)


def lenet(widths: list[int], squares: int) -> nn.Module:
    """LeNet-5 with average pooling: maps of two convolutions and two hidden layers, such as 6, 16, 120, 84.

    It has up to four squares: three are without that of the last hidden layer, two without the second convolution's,
    too. What has no square between them is one map when it is encrypted.
    """
    first, second, third, fourth = widths
    layers = [nn.Conv2d(1, first, 5, padding=2), Square(), nn.AvgPool2d(2), nn.Conv2d(first, second, 5)]
    layers += [Square()] * (squares >= 3) + [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(25 * second, third), Square()]
    layers += [nn.Linear(third, fourth)] + [Square()] * (squares >= 4) + [nn.Linear(fourth, 10)]
    return nn.Sequential(*layers)


NETWORKS = {"mlp": mlp, "lenet-5": lenet}


@torch.no_grad()
def without_pooling(model: nn.Module) -> nn.Module:
    """The same function, in which every average pooling of 2 by 2 is part of the convolution or linear layer behind it.

    Each weight becomes four, a quarter as large: a kernel of k by k one of 2k by 2k that moves two pixels at a time.
    """
    layers, pooled, maps = [], False, 1
    for module in copy.deepcopy(model):  # type: ignore[attr-defined]
        if isinstance(module, nn.AvgPool2d):
            pooled = True
            continue
        if pooled and isinstance(module, nn.Conv2d):
            outputs, inputs, size, _ = module.weight.shape
            wider = nn.Conv2d(inputs, outputs, 2 * size, stride=2)
            wider.weight.copy_(_fourfold(module.weight))
            wider.bias, module, pooled = module.bias, wider, False
        elif pooled and isinstance(module, nn.Linear):
            side = round((module.in_features / maps) ** 0.5)
            kernels = _fourfold(module.weight.view(module.out_features, maps, side, side))
            wide = nn.Linear(4 * module.in_features, module.out_features)
            wide.weight.copy_(kernels.flatten(1))
            wide.bias, module, pooled = module.bias, wide, False
        if isinstance(module, nn.Conv2d):
            maps = module.out_channels
        layers.append(module)
    return nn.Sequential(*layers)


def _fourfold(weight: Tensor) -> Tensor:
    return weight.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4


@dataclass(frozen=True)
class Images:
    """Pairs of images, float [n, 1, 28, 28] in 0..1, and classes: those to train with, and those of ``split``."""

    train: Pairs
    test: Pairs
    split: str


def images(place: Place) -> Images:
    """MNIST; its validation images instead of the test images where settings are chosen."""
    data = load("mnist", place.data)
    split = data.validation if place.validation else data.test
    train, test = ((part.inputs.float() / 255, part.targets) for part in (data.train, split))
    return Images(train, test, "validation" if place.validation else "test")


def trained(asked: Row, squares: int, data: Images, seed: int) -> nn.Module:
    """The network that is asked for, with so many squares, from scratch."""
    torch.manual_seed(seed)
    model = NETWORKS[asked["network"]](asked["widths"], squares)
    fit(model, data.train, asked["epochs"])
    return model


def fit(
    model: nn.Module,
    data: Pairs,
    epochs: int,
    lr: float = 1e-3,
    held: Held | None = None,
    objective: Callable[[Tensor, Pairs], Tensor] | None = None,
) -> None:
    """AdamW with clipped gradients, on cross-entropy or ``objective(outputs, batch)``; ``held`` acts at each step."""
    inputs, targets = data
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    steps = len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * lr, total_steps=max(1, epochs * steps))
    for epoch in range(epochs):
        order = torch.randperm(len(inputs))
        for place in range(steps):
            batch = order[place * BATCH : (place + 1) * BATCH]
            outputs, pair = model(inputs[batch]), (inputs[batch], targets[batch])
            loss = cross_entropy(outputs, pair[1]) if objective is None else objective(outputs, pair)
            optimizer.zero_grad()
            loss.backward()
            if held is not None:
                held.gradients((epoch * steps + place) / (epochs * steps))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if held is not None:
                held.weights()


@torch.no_grad()
def accuracy(model: nn.Module, data: Pairs) -> float:
    """Percent."""
    return 100 * float((model.eval()(data[0]).argmax(1) == data[1]).double().mean())
