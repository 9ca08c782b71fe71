"""What matters: a score for every weight of a network."""

from fewbits.measure._scores import Scores, fisher, magnitude, random, taylor
from fewbits.measure.attribution import ATTRIBUTIONS, Attribution
from fewbits.measure.controls import CONTROLS, control
from fewbits.measure.curvature import Curvature, curvature, sensitivity
from fewbits.measure.flipping import FlippingCurve, flipping_curve
from fewbits.measure.relevance import Relevance, Rules, relevance
from fewbits.measure.scorer import RelevanceScorer, Scorer, TrainingStep

__all__ = [
    "ATTRIBUTIONS",
    "CONTROLS",
    "Attribution",
    "Curvature",
    "FlippingCurve",
    "Relevance",
    "RelevanceScorer",
    "Rules",
    "Scorer",
    "Scores",
    "TrainingStep",
    "control",
    "curvature",
    "fisher",
    "flipping_curve",
    "magnitude",
    "random",
    "relevance",
    "sensitivity",
    "taylor",
]
