"""Sweeps over a recipe's fields, and the settings among them that no other beats. Needs the extra ``search``."""

from fewbits.search.sweep.front import front
from fewbits.search.sweep.space import Params, SweepSpace

__all__ = ["Params", "SweepSpace", "front"]
