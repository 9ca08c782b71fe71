"""Reference networks of the papers, as plain modules that ``torch.fx.symbolic_trace`` can follow."""

from fewbits.zoo._build import INPUTS, NETWORKS, build
from fewbits.zoo._digitsnet import DigitsNet
from fewbits.zoo._fastgrnn import FastGRNN
from fewbits.zoo._hebbian import ConvNet, SoftHebbNet, Triangle
from fewbits.zoo._lenet import LeNet5, LeNet300100
from fewbits.zoo._mlp import MLPGSC
from fewbits.zoo._vgg import VGG16, VGG16BN
from fewbits.zoo._weights import load_weights, normalisation
from fewbits.zoo._wideresnet import WRN22_8, WRN28_8, WideResNet
from fewbits.zoo.mobilenet import MobileNetV2
from fewbits.zoo.resnet import PadShortcut, ResNet, ResNet20, ResNet32, ResNet44, ResNet56

__all__ = [
    "INPUTS",
    "MLPGSC",
    "NETWORKS",
    "VGG16",
    "VGG16BN",
    "WRN22_8",
    "WRN28_8",
    "ConvNet",
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
    "SoftHebbNet",
    "Triangle",
    "WideResNet",
    "build",
    "load_weights",
    "normalisation",
]
