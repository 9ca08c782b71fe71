"""An approximation as a function of NumPy arrays (the reference), of tensors, and as a module."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.approximation import Approximation
from fewbits.errors import RecipeError
from fewbits.ops import _integer as integer
from fewbits.ops._evaluate import Evaluator


def evaluate(approximation: Approximation, x: Tensor, **options: Any) -> Tensor:
    """The approximate values of a tensor, in float32 and without a gradient.

    Args:
        options: of softmax ``dim``; of normalisations ``shape`` (the last dimensions), ``weight``, ``bias``, ``eps``.

    Raises:
        DataError: a number outside of a domain that refuses it.
    """
    return Evaluator(approximation)(x, **options)


class Approximated(nn.Module):
    """An approximation as a layer without parameters; torch exports it to ordinary ONNX operators.

    Args:
        options: as of :func:`evaluate`.
    """

    def __init__(self, approximation: Approximation, **options: Any) -> None:
        super().__init__()
        self.approximation, self.options = approximation, options
        self.evaluator = Evaluator(approximation)

    def forward(self, x: Tensor) -> Tensor:
        """In the type of the input. Without a gradient: a network that is to be trained is swapped as a whole."""
        return self.evaluator(x, **self.options).to(x.dtype)

    def extra_repr(self) -> str:
        return str(self.approximation)


def reference(approximation: Approximation, levels: NDArray[Any], *, epsilon: int = 0) -> NDArray[np.int64]:
    """Integers in, integers out, by NumPy's int64 alone: what every runtime has to give, bit for bit.

    Args:
        levels: inputs in units of ``approximation.units[0]``; rows are along the last dimension. The result is in
            units of ``approximation.units[1]``.
        epsilon: of normalisations, in the square of the unit of the inputs.

    Raises:
        RecipeError: an approximation that is not of integers, or rows that are too long for 64 bits.
    """
    if approximation.kind != "integer":
        raise RecipeError(f"{approximation} has no integer reference: fit it with bits")
    whole = np.asarray(levels, np.int64)
    if approximation.pieces is not None:
        return integer.evaluated(approximation.pieces, whole)
    if approximation.operation == "softmax":
        return integer.softmax(whole, approximation.bits)
    check_row(whole.shape[-1])
    centre = approximation.operation == "layer_norm"
    return integer.normalised(whole, approximation.bits, epsilon, centre=centre)


def check_row(size: int) -> None:
    """Raise RecipeError where the sum of squares of a row may leave 64 bits."""
    if 2 * (15 + math.log2(size)) + math.log2(size) > 62:
        raise RecipeError(f"integer normalisation takes rows of at most 1625 numbers, got {size}")
