"""A network of integers: layers of whole numbers and squares between them, and how large its numbers may get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.private.form import Form
from fewbits.private.read import INPUT, read

ON_GRID = 1e-4  # of a step, by which float32 weights of a grid may be off it


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """``matrix @ x + bias``, and its square if ``squared``.

    Attributes:
        where: the layer, in words. matrix: int64 [outputs, inputs]. bias: Python integers, object [outputs].
    """

    where: str
    matrix: np.ndarray
    bias: np.ndarray
    squared: bool


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Layers in order, and what their integers stand for.

    Attributes:
        shape: of a sample. least, most: of its integers. step: of an input; a sample is ``step`` times its integers.
        scale: an output is ``scale`` times its integer.
    """

    shape: tuple[int, ...]
    layers: tuple[IntegerLayer, ...]
    least: int
    most: int
    step: float
    scale: float

    def integers(self, samples: Any) -> np.ndarray:
        """Samples [n, ...] on the grid of inputs, int64 [n, numbers].

        Raises:
            RecipeError: a number that the grid does not reach.
        """
        found = np.rint(np.asarray(samples, np.float64).reshape(len(samples), -1) / self.step)
        if not ((found >= self.least) & (found <= self.most)).all():
            low, high = self.least * self.step, self.most * self.step
            raise RecipeError(f"a number of the input is outside {low:g}..{high:g}, which its integers reach: clamp it")
        return found.astype(np.int64)

    def __call__(self, integers: np.ndarray) -> np.ndarray:
        """The outputs of int [n, numbers], as Python integers, object [n, outputs]: exact at any size."""
        value = np.asarray(integers).astype(object)
        for layer in self.layers:
            value = _product(value, layer.matrix) + layer.bias
            value = value * value if layer.squared else value
        return value

    def ranges(self) -> list[tuple[str, int, int]]:
        """By layer, the least and the largest integer that any input may give, squares included."""
        inputs = self.layers[0].matrix.shape[1]
        low, high = (np.full(inputs, end, dtype=object) for end in (self.least, self.most))
        found = []
        for layer in self.layers:
            up, down = (np.maximum(sign * layer.matrix, 0).astype(object) for sign in (1, -1))
            low, high = up @ low - down @ high + layer.bias, up @ high - down @ low + layer.bias
            if layer.squared:
                both = np.maximum(low * low, high * high)
                low, high = np.where((low < 0) & (high > 0), 0, np.minimum(low * low, high * high)), both
            found.append((layer.where, min(low), max(high)))
        return found


def integer_network(model: nn.Module, samples: Any, *, bits: int = 4, input_bits: int = 4) -> IntegerNetwork:
    """A network's layers as integers of ``bits`` bits, by the nearest level of a symmetric grid for each layer.

    A layer that lies on such a grid already, as one of a compressed file does, is taken as it is.

    Args:
        model: a chain of linear layers, convolutions, average pooling and squares.
        samples: calibration data [n, ...], whose largest number the grid of inputs reaches.
        bits: of weights, sign included, 2..12. input_bits: of inputs, 1..12, sign included if samples have any.

    Raises:
        UnsupportedError: a network that is no such chain. RecipeError: bits that there are not.
    """
    if not 2 <= bits <= 12 or not 1 <= input_bits <= 12:
        raise RecipeError(f"weights have 2..12 bits and inputs 1..12, got {bits} and {input_bits}")
    given = torch.as_tensor(samples, dtype=torch.float64)
    signed = bool((given < 0).any())
    if signed and input_bits < 2:
        raise RecipeError("samples have a sign, so inputs need 2 bits or more")
    most = 2 ** (input_bits - signed) - 1
    step = float(given.abs().max()) / most or 1.0
    reading = read(model, tuple(given.shape[1:]))
    source, scale, layers = INPUT, step, []
    for node in reading.nodes:
        if not node.squared or node.other is not None:
            raise UnsupportedError(f"{node.where}: exact programs take squares only; CKKS takes it (compile_network)")
        layer, scale = _layer(node.where, node.form, source, scale, bits, True)
        layers.append(layer)
        source = node.name
    layer, scale = _layer("the output", reading.output, source, scale, bits, False)
    return IntegerNetwork(reading.shape, (*layers, layer), -most if signed else 0, most, step, scale)


def _layer(
    where: str, form: Form, source: str, scale: float, bits: int, squared: bool
) -> tuple[IntegerLayer, float]:  # fmt: skip
    if set(form.terms) != {source}:
        raise UnsupportedError(
            f"{where}: exact programs are chains, and it reads {', '.join(form.terms) or 'nothing'}; CKKS takes it "
            "(compile_network)"
        )
    matrix = form.terms[source].numpy().T
    levels, step = on_grid(matrix, bits)
    scale *= step
    bias = np.array([round(float(b) / scale) for b in form.bias.numpy()], dtype=object)
    return IntegerLayer(where, levels, bias, squared), scale * scale if squared else scale


def _product(value: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``value @ matrix.T`` of Python integers; in float64 where no sum of it is rounded, which is much faster."""
    largest = max(map(abs, value.flat), default=0)
    if largest * int(np.abs(matrix).sum(1).max(initial=0)) < 2**53:
        return (value.astype(np.float64) @ matrix.T.astype(np.float64)).astype(np.int64).astype(object)
    return np.asarray(value @ matrix.T.astype(object))


def on_grid(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Levels, int64, and the step: the coarsest grid that the matrix lies on, else the nearest levels of the finest."""
    largest, most = float(np.abs(matrix).max()), 2 ** (bits - 1) - 1
    for level in range(1, most + 1):
        exact = matrix * (level / largest)
        if np.abs(exact - np.rint(exact)).max() < ON_GRID:
            return np.rint(exact).astype(np.int64), largest / level
    return np.rint(matrix * (most / largest)).astype(np.int64), largest / most
