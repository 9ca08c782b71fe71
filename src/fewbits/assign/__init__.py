"""What each weight becomes: assigners from named weights (and scores) to a plan."""

from fewbits.assign.assigner import Assigner, Scores, Weights, nothing, only
from fewbits.assign.chain import ChainState, chain
from fewbits.assign.entropy import ecq, ecqx
from fewbits.assign.entropy_state import CodebookState, EntropyState, GridState
from fewbits.assign.grid import gradient_scale, nearest, step_size
from fewbits.assign.layerwise import layerwise
from fewbits.assign.magnitude import erk, feather, global_magnitude, joint, lamp, random_pruning, uniform
from fewbits.assign.pattern import n_of_m
from fewbits.assign.pruning import PrunedState, ScoredState, Terms, pruner
from fewbits.assign.schedule import Schedule, rising
from fewbits.assign.scored import scored, wanda
from fewbits.assign.state import LayerState, State, with_codebooks, with_steps
from fewbits.assign.ternary import ternary

__all__ = [
    "Assigner",
    "ChainState",
    "CodebookState",
    "EntropyState",
    "GridState",
    "LayerState",
    "PrunedState",
    "Schedule",
    "ScoredState",
    "Scores",
    "State",
    "Terms",
    "Weights",
    "chain",
    "ecq",
    "ecqx",
    "erk",
    "feather",
    "global_magnitude",
    "gradient_scale",
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
    "scored",
    "step_size",
    "ternary",
    "uniform",
    "wanda",
    "with_codebooks",
    "with_steps",
]
