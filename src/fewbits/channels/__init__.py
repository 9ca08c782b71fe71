"""Channels: which of them depend on each other, and which matter."""

from fewbits.channels.criteria import (
    CRITERIA,
    by_chance,
    by_curvature,
    by_magnitude,
    by_output,
    by_taylor,
    criterion,
    first_samples,
)
from fewbits.channels.dependencies import Dependencies
from fewbits.channels.layer_losses import measured
from fewbits.channels.load import load_plan
from fewbits.channels.read import dependencies
from fewbits.channels.select import Choice, Sizes, choose, unit_scores
from fewbits.channels.surgery import narrow, silence

__all__ = [
    "CRITERIA",
    "Choice",
    "Dependencies",
    "Sizes",
    "by_chance",
    "by_curvature",
    "by_magnitude",
    "by_output",
    "by_taylor",
    "choose",
    "criterion",
    "dependencies",
    "first_samples",
    "load_plan",
    "measured",
    "narrow",
    "silence",
    "unit_scores",
]
