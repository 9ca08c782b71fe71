"""How a network learns from a batch: backpropagation and, in time, others."""

from fewbits.train.rules.backprop import backprop
from fewbits.train.rules.rule import Batch, Rule

__all__ = ["Batch", "Rule", "backprop"]
