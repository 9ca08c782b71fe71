"""How a plan is held on a network: attach it, read it, fold it."""

from fewbits.attach._affine import AffineWeight
from fewbits.attach._hold import ClusteredWeight
from fewbits.attach._mask import MaskedWeight
from fewbits.attach._normalisation import merge_statistics
from fewbits.attach._perturb import perturbable
from fewbits.attach._recomputed import recomputed
from fewbits.attach.attach import attach, background, evaluating, fold, held, plan_of, release
from fewbits.attach.holder import Floats, Holder, Parametrized

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
    "recomputed",
    "release",
]
