"""Weights and activations as 8-bit integers."""

from fewbits.int8.affine_grid import affine
from fewbits.int8.alone import Program, Step, is_alone, program
from fewbits.int8.clusters import clustered_plan, ranges_of
from fewbits.int8.folding import folded
from fewbits.int8.form import affine_plan, calibrate, integer_form, is_integer, is_integer_plan, load_affine
from fewbits.int8.holder import IntegerForm
from fewbits.int8.places import grid_of, places, repeated
from fewbits.int8.quantizer import Quantizer, RangedQuantizer

__all__ = [
    "IntegerForm",
    "Program",
    "Quantizer",
    "RangedQuantizer",
    "Step",
    "affine",
    "affine_plan",
    "calibrate",
    "clustered_plan",
    "folded",
    "grid_of",
    "integer_form",
    "is_alone",
    "is_integer",
    "is_integer_plan",
    "load_affine",
    "places",
    "program",
    "ranges_of",
    "repeated",
]
