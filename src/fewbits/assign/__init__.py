"""What each weight becomes: assigners from named weights (and scores) to a plan."""

from fewbits.assign._against import against
from fewbits.assign._chain import ChainState, chain
from fewbits.assign._entropy import ecq, ecqx
from fewbits.assign._entropy_state import CodebookState, EntropyState, GridState
from fewbits.assign._grid import gradient_scale, nearest, step_size
from fewbits.assign._groups import grouped
from fewbits.assign._pattern import n_of_m
from fewbits.assign._schedule import Schedule, rising
from fewbits.assign._scored import scored, wanda
from fewbits.assign._ternary import ternary
from fewbits.assign.assigner import Assigner, Scores, Weights, nothing, only
from fewbits.assign.layerwise import layerwise
from fewbits.assign.magnitude import erk, feather, global_magnitude, joint, lamp, random_pruning, uniform
from fewbits.assign.pruning import PrunedState, ScoredState, Terms, pruner
from fewbits.assign.sample import Sample, sample
from fewbits.assign.state import LayerState, State, with_codebooks, with_steps

__all__ = [
    "Assigner",
    "ChainState",
    "CodebookState",
    "EntropyState",
    "GridState",
    "LayerState",
    "PrunedState",
    "Sample",
    "Schedule",
    "ScoredState",
    "Scores",
    "State",
    "Terms",
    "Weights",
    "against",
    "chain",
    "ecq",
    "ecqx",
    "erk",
    "feather",
    "global_magnitude",
    "gradient_scale",
    "grouped",
    "joint",
    "lamp",
    "layerwise",
    "n_of_m",
    "nearest",
    "nothing",
    "only",
    "pruner",
    "random_pruning",
    "rising",
    "sample",
    "scored",
    "step_size",
    "ternary",
    "uniform",
    "wanda",
    "with_codebooks",
    "with_steps",
]
