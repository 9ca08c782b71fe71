"""What to do, as typed data: the same recipe from Python and from YAML."""

from fewbits.recipe._recipe import RENAMED, Recipe, load, make, names, text_of
from fewbits.recipe.operations import Operation
from fewbits.recipe.pruning import ChannelPruning, Packing, Prune
from fewbits.recipe.sections import (
    Assign,
    Augment,
    Data,
    Measure,
    Network,
    Normalise,
    Part,
    Readout,
    RuleChoice,
    Select,
    TaskChoice,
)
from fewbits.recipe.training import Activations, Finetuning, Pretraining, RangeTraining, Recovery, Training
from fewbits.recipe.variation import Range, Sweep, changed

__all__ = [
    "RENAMED",
    "Activations",
    "Assign",
    "Augment",
    "ChannelPruning",
    "Data",
    "Finetuning",
    "Measure",
    "Network",
    "Normalise",
    "Operation",
    "Packing",
    "Part",
    "Pretraining",
    "Prune",
    "Range",
    "RangeTraining",
    "Readout",
    "Recipe",
    "Recovery",
    "RuleChoice",
    "Select",
    "Sweep",
    "TaskChoice",
    "Training",
    "changed",
    "load",
    "make",
    "names",
    "text_of",
]
