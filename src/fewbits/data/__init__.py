"""Data sets in memory, split into training, validation and test the same way every time."""

from fewbits.data._activity import activity
from fewbits.data._augment import CropFlip
from fewbits.data._cifar import cifar10, cifar100
from fewbits.data._idx import fashion_mnist, mnist
from fewbits.data._speech import speech_commands
from fewbits.data.dataset import DataSet, Split
from fewbits.data.digits import digits
from fewbits.data.fetch import fetch
from fewbits.data.load import NAMES, load
from fewbits.data.normalisation import Normalisation

__all__ = [
    "NAMES",
    "CropFlip",
    "DataSet",
    "Normalisation",
    "Split",
    "activity",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "fetch",
    "load",
    "mnist",
    "speech_commands",
]
