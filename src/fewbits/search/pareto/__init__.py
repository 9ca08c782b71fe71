"""Sweeps over a recipe's fields, and the settings among them that no other beats. Needs the extra ``search``."""

from fewbits.search.pareto.front import front
from fewbits.search.pareto.space import Params, Space
from fewbits.search.pareto.sweep import Swept, sweep

__all__ = ["Params", "Space", "Swept", "front", "sweep"]
