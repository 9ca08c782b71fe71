"""What a network costs: parameters and multiplications, counted through its graph, and the costs of a plan."""

from fewbits.hardware.cost import COSTS, Cost, CostMaker, cost_of, maker_of
from fewbits.hardware.count import Count, LayerCount, count

__all__ = ["COSTS", "Cost", "CostMaker", "Count", "LayerCount", "cost_of", "count", "maker_of"]
