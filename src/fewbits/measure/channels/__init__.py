"""Channels: which of them depend on each other, and which matter."""

from fewbits.measure.channels.criteria import (
    CRITERIA,
    by_chance,
    by_curvature,
    by_magnitude,
    by_output,
    by_taylor,
    criterion,
    first_samples,
)
from fewbits.measure.channels.dependencies import Dependencies
from fewbits.measure.channels.measured import measured
from fewbits.measure.channels.read import dependencies

__all__ = [
    "CRITERIA",
    "Dependencies",
    "by_chance",
    "by_curvature",
    "by_magnitude",
    "by_output",
    "by_taylor",
    "criterion",
    "dependencies",
    "first_samples",
    "measured",
]
