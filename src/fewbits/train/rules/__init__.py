"""How a network learns from a batch: backpropagation and, in time, others."""

from fewbits.train.rules._backprop import backprop
from fewbits.train.rules._rule import Batch, Rule

__all__ = ["Batch", "Rule", "backprop"]
