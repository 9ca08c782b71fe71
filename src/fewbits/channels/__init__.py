"""Channels: which of them depend on each other, and which matter."""

from fewbits.channels._criteria import (
    CRITERIA,
    by_chance,
    by_curvature,
    by_magnitude,
    by_output,
    by_taylor,
    criterion,
    first_samples,
)
from fewbits.channels._layer_losses import measured
from fewbits.channels._read import dependencies
from fewbits.channels.dependencies import Dependencies
from fewbits.channels.load import load_plan
from fewbits.channels.select import ChannelChoice, Sizes, choose, unit_scores
from fewbits.channels.surgery import prune_channels, zero_channels

__all__ = [
    "CRITERIA",
    "ChannelChoice",
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
    "prune_channels",
    "unit_scores",
    "zero_channels",
]
