"""Reference networks of the papers, as plain modules that ``torch.fx.symbolic_trace`` can follow."""

from fewbits.zoo.build import INPUTS, NETWORKS, build
from fewbits.zoo.digitsnet import DigitsNet
from fewbits.zoo.fastgrnn import FastGRNN
from fewbits.zoo.lenet import LeNet5, LeNet300100
from fewbits.zoo.mlp import MLPGSC
from fewbits.zoo.mobilenet import MobileNetV2
from fewbits.zoo.resnet import PadShortcut, ResNet, ResNet20, ResNet32, ResNet44, ResNet56
from fewbits.zoo.vgg import VGG16, VGG16BN
from fewbits.zoo.weights import load_weights, normalisation
from fewbits.zoo.wideresnet import WRN22_8, WRN28_8, WideResNet

__all__ = [
    "INPUTS",
    "MLPGSC",
    "NETWORKS",
    "VGG16",
    "VGG16BN",
    "WRN22_8",
    "WRN28_8",
    "DigitsNet",
    "FastGRNN",
    "LeNet5",
    "LeNet300100",
    "MobileNetV2",
    "PadShortcut",
    "ResNet",
    "ResNet20",
    "ResNet32",
    "ResNet44",
    "ResNet56",
    "WideResNet",
    "build",
    "load_weights",
    "normalisation",
]
