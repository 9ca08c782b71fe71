"""Which settings: the entropy term's strength from a budget of bytes or accuracy."""

from fewbits.search.budget import Fixed, SizeAt, Steering, TowardSize, WithinDrop, solve

__all__ = ["Fixed", "SizeAt", "Steering", "TowardSize", "WithinDrop", "solve"]
