"""What a network costs: parameters and multiplications, counted through its graph."""

from fewbits.hardware.count import Count, LayerCount, count

__all__ = ["Count", "LayerCount", "count"]
