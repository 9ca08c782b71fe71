"""A network by its name, as recipes write it."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from fewbits.errors import RecipeError, did_you_mean
from fewbits.zoo._digitsnet import DigitsNet
from fewbits.zoo._fastgrnn import FastGRNN
from fewbits.zoo._hebbian import ConvNet, SoftHebbNet
from fewbits.zoo._lenet import LeNet5, LeNet300100
from fewbits.zoo._mlp import MLPGSC
from fewbits.zoo._vgg import VGG16, VGG16BN
from fewbits.zoo._wideresnet import WRN22_8, WRN28_8
from fewbits.zoo.mobilenet import MobileNetV2
from fewbits.zoo.resnet import ResNet20, ResNet32, ResNet44, ResNet56

NETWORKS: dict[str, type[nn.Module]] = {
    "conv-net": ConvNet,
    "digits-net": DigitsNet,
    "fastgrnn": FastGRNN,
    "lenet-300-100": LeNet300100,
    "lenet-5": LeNet5,
    "mlp-gsc": MLPGSC,
    "mobilenet-v2": MobileNetV2,
    "resnet-20": ResNet20,
    "resnet-32": ResNet32,
    "resnet-44": ResNet44,
    "resnet-56": ResNet56,
    "soft-hebb-net": SoftHebbNet,
    "vgg16": VGG16,
    "vgg16-bn": VGG16BN,
    "wrn-22-8": WRN22_8,
    "wrn-28-8": WRN28_8,
}

INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(NETWORKS, (3, 32, 32)),
    "digits-net": (1, 8, 8),
    "fastgrnn": (6, 128),
    "lenet-300-100": (1, 28, 28),
    "lenet-5": (1, 28, 28),
    "mlp-gsc": (255,),
}
"""Shape of one sample that each network takes, with the constructor's default options."""


def build(name: str, *, seed: int | None = None, **options: object) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: a key of :data:`NETWORKS`.
        seed: of the initial weights; the global random state is left as it was. ``None`` draws from it.
        options: the constructor's arguments, such as ``classes=100``.

    Raises:
        RecipeError: an unknown network, option, or an option's impossible value.
    """
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise RecipeError(f"no network is called {name!r}{did_you_mean(name, NETWORKS)} (known: {known})")
    network = NETWORKS[name]
    valid = list(inspect.signature(network).parameters)
    for option in options:
        if option not in valid:
            known = ", ".join(valid)
            raise RecipeError(f"{name} has no option {option!r}{did_you_mean(option, valid)} (it has: {known})")
    try:
        if seed is None:
            return network(**options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{name} cannot be built with {options}: {error}") from error
