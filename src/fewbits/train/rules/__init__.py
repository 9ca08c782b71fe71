"""How a network learns from a batch: backpropagation and others."""

from fewbits.train.rules._backprop import backprop
from fewbits.train.rules._blocks import Block, Chain, blocks_of
from fewbits.train.rules._registry import RULES, rule_of
from fewbits.train.rules._rule import Batch, Rule

__all__ = ["RULES", "Batch", "Block", "Chain", "Rule", "backprop", "blocks_of", "rule_of"]
