"""Relevance of every network of the zoo without gates, as two numbers per weight, which ``relevance.json`` holds.

The file was made by the engine that traced networks with ``torch.fx``, on the last commit that had it. It is not made
anew: another engine than the present one computed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fewbits.measure.relevance import COMPOSITES
from fewbits.weights import select
from fewbits.zoo import (
    MLPGSC,
    VGG16,
    VGG16BN,
    DigitsNet,
    LeNet5,
    LeNet300100,
    MobileNetV2,
    ResNet,
    ResNet20,
    WideResNet,
)
from networks import explain, randomised, sharp

STORED = Path(__file__).with_name("relevance.json")
Network = tuple[Callable[[], nn.Module], tuple[int, ...]]
SMALL: dict[str, Network] = {
    "digits-net": (DigitsNet, (1, 8, 8)),
    "lenet-300-100": (lambda: LeNet300100(inputs=16), (1, 4, 4)),
    "lenet-5": (lambda: LeNet5(size=16), (1, 16, 16)),
    "mlp-gsc": (lambda: MLPGSC(inputs=17), (17,)),
    "resnet-8": (lambda: ResNet(8), (3, 8, 8)),
    "wrn-10-1": (lambda: WideResNet(10, 1), (3, 8, 8)),
}
LARGE: dict[str, Network] = {
    "resnet-20": (ResNet20, (3, 16, 16)),
    "mobilenet-v2": (MobileNetV2, (3, 16, 16)),
    "vgg16": (VGG16, (3, 32, 32)),
    "vgg16-bn": (VGG16BN, (3, 32, 32)),
}


def numbers(tensor: Tensor) -> list[float]:
    """A weighted sum that no two elements enter alike, and the sum of absolutes that says what is much."""
    weights = torch.linspace(0.5, 1.5, tensor.numel(), dtype=torch.float64)
    flat = tensor.detach().double().flatten()
    return [float(f"{float(v):.13g}") for v in (flat @ weights, flat.abs().sum())]


def values(name: str) -> dict[str, dict[str, list[float]]]:
    """By composite and mode: the numbers of each weight and of the inputs; with ``at``, at other weights."""
    make, shape = (SMALL | LARGE)[name]
    torch.manual_seed(0)
    model = randomised(make())
    x = torch.randn(3, *shape, dtype=torch.float64)
    elsewhere = {weight: tensor.detach().roll(1, 0) for weight, tensor in select(model).items()}
    found = {}
    for mode in ("eval", "train"):
        model.train(mode == "train")
        for composite, rules in COMPOSITES.items():
            for at in (None, elsewhere) if composite in ("paper", "plus") else (None,):
                torch.manual_seed(1)  # dropout
                relevance, _ = explain(model, x, sharp(rules), inputs=True, at=at)
                key = f"{composite}, {mode}{', at' if at else ''}"
                found[key] = {weight: numbers(r) for weight, r in relevance.weights.items()}
                found[key]["inputs"] = numbers(relevance.inputs)
    return found


if __name__ == "__main__":
    STORED.write_text(json.dumps({name: values(name) for name in SMALL | LARGE}, separators=(",", ":")) + "\n")
