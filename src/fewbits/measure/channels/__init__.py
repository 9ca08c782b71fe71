"""Channels: which of them depend on each other, and which matter."""

from fewbits.measure.channels.dependencies import Dependencies
from fewbits.measure.channels.read import dependencies

__all__ = ["Dependencies", "dependencies"]
