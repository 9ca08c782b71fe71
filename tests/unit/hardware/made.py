"""Layers that are made, not read from a network."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from fewbits.hardware import Known, Layer


def convolution(
    outputs: int, inputs: int, kernel: int, size_in: int, size_out: int, stride: int = 1, **changes: Any
) -> Layer:
    """A square convolution without zeros, of 8-bit weights."""
    groups = changes.pop("groups", 1)
    weights = outputs * inputs // groups * kernel**2
    layer = Layer(
        "conv.weight", 1, outputs, inputs, groups, (kernel,) * 2, (stride,) * 2, (1, 1),
        (size_in,) * 2, (size_out,) * 2, weights, weights, 8, 0, None, 1.0, float(weights * size_out**2),
        Known.DENSE, Known.DENSE,
    )  # fmt: skip
    return replace(layer, **changes)


def product(outputs: int, inputs: int, positions: int, **changes: Any) -> Layer:
    """A matrix product without zeros, of 8-bit weights."""
    weights = outputs * inputs
    layer = Layer(
        "fc.weight", 1, outputs, inputs, 1, (), (), (), (positions,), (positions,),
        weights, weights, 8, 0, None, 1.0, float(prod((weights, positions))), Known.DENSE, Known.DENSE,
    )  # fmt: skip
    return replace(layer, **changes)
