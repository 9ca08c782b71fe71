"""How a plan is held on a network: attach it, read it, fold it."""

from fewbits.attach.affine import AffineWeight
from fewbits.attach.attach import attach, background, evaluating, fold, held, plan_of
from fewbits.attach.hold import ClusteredWeight
from fewbits.attach.holder import Floats, Holder, Parametrized
from fewbits.attach.mask import MaskedWeight
from fewbits.attach.normalisation import merge_statistics
from fewbits.attach.perturb import perturbable

__all__ = [
    "AffineWeight",
    "ClusteredWeight",
    "Floats",
    "Holder",
    "MaskedWeight",
    "Parametrized",
    "attach",
    "background",
    "evaluating",
    "fold",
    "held",
    "merge_statistics",
    "perturbable",
    "plan_of",
]
