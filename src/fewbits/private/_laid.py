"""Affine maps that have to be laid out in slots, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fewbits.hardware.packing import Layout, Placement, Split, summed_cells

FEW_WEIGHTS = 0.25  # share of a matrix, below which it is a convolution's rather than a linear layer's


@dataclass(frozen=True, eq=False)
class Map:
    """An affine map that has to be laid out.

    Attributes:
        target: the value's name. where: the layer it is of, in words. matrices: by source, float64 [outputs, inputs].
        bias: float64 [outputs]. last: whether its result is the answer. primes, after: left at products and at folds.
        like: the target whose placement it must have.
        shape: of the result. shapes: of the sources, by name.
        halved: whether cells of 2 by 2 of its result, squared or not, are all that is read of it.
    """

    target: str
    where: str
    matrices: Mapping[str, np.ndarray]
    bias: np.ndarray
    primes: int
    after: int
    last: bool = False
    like: str | None = None
    shape: tuple[int, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    halved: bool = False

    @cached_property
    def local(self) -> bool:
        """Whether it makes an image, each pixel of few numbers: a spread would bring all of them to each."""
        few = all(np.count_nonzero(matrix) < FEW_WEIGHTS * matrix.size for matrix in self.matrices.values())
        return len(self.shape) == 3 and not self.last and few

    @cached_property
    def summed(self) -> dict[str, np.ndarray]:
        """By source that is read in sums of cells, the matrix of these sums."""
        found = {name: summed_cells(matrix, self.shapes.get(name, ())) for name, matrix in self.matrices.items()}
        return {name: matrix for name, matrix in found.items() if matrix is not None}


@dataclass(frozen=True, eq=False)
class Read:
    """A source as a map reads it: where its numbers lie after ``folds``, and the matrix of what lies there then."""

    layout: Layout
    matrix: np.ndarray
    folds: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Laid:
    """A map in slots: by source how it is read, its shifts (those without weights left out), and their split."""

    map: Map
    spread: Placement
    reads: Mapping[str, Read]
    shifts: Mapping[str, np.ndarray]
    splits: Mapping[str, Split]
    cost: float


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Layouts of all values, by name, and the maps between them. ``cost``: predicted milliseconds of the maps."""

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    maps: tuple[Laid, ...] = ()
    cost: float = 0.0
