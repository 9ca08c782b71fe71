"""What matters: a score for every weight of a network."""

from fewbits.measure._scores import Scores, fisher, magnitude, random, taylor
from fewbits.measure.curvature import Curvature, curvature, sensitivity
from fewbits.measure.relevance import Relevance, Rules, relevance
from fewbits.measure.scorer import CONTROLS, RelevanceScorer, Scorer, TrainingStep, control

__all__ = [
    "CONTROLS",
    "Curvature",
    "Relevance",
    "RelevanceScorer",
    "Rules",
    "Scorer",
    "Scores",
    "TrainingStep",
    "control",
    "curvature",
    "fisher",
    "magnitude",
    "random",
    "relevance",
    "sensitivity",
    "taylor",
]
