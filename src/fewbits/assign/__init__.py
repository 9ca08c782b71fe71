"""What each weight becomes: assigners from named weights (and scores) to a plan."""

from fewbits.assign.assigner import (
    Assigner,
    LayerState,
    Scores,
    State,
    Weights,
    only,
    with_codebooks,
    with_curvatures,
    with_steps,
)
from fewbits.assign.entropy import ecq, ecqx
from fewbits.assign.grid import gradient_scale, nearest, step_size
from fewbits.assign.ternary import ternary

__all__ = [
    "Assigner",
    "LayerState",
    "Scores",
    "State",
    "Weights",
    "ecq",
    "ecqx",
    "gradient_scale",
    "nearest",
    "only",
    "step_size",
    "ternary",
    "with_codebooks",
    "with_curvatures",
    "with_steps",
]
