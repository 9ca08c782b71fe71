"""Which weights lie on one generalized diagonal: together they cost one product, and with them a rotation may go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.hardware.packing import Split, diagonals
from fewbits.private.compile import laid_out
from fewbits.weights import select

CLOSE = 1e-6  # of a matrix in float64 and weights in float32


@dataclass(frozen=True, eq=False)
class Diagonals:
    """Of a network, by the name of the weight.

    Attributes:
        groups: int64 of the weight's shape, the number of the diagonal that each weight lies on.
        lines: int64 [diagonals, 2], the giant and the baby that each diagonal needs; each is a rotation, but for 0.
    """

    groups: dict[str, Tensor] = field(default_factory=dict)
    lines: dict[str, Tensor] = field(default_factory=dict)


def diagonals_of(model: nn.Module, shape: tuple[int, ...], *, degree: int, profile: str = "precise") -> Diagonals:
    """The diagonals of each linear layer that is multiplied alone, whatever its rows and columns are scaled with.

    A layer that is multiplied together with a neighbour, since no square is between them, has none of its own; nor have
    convolutions, whose weights lie on several.

    Args:
        model: the network before anything is pruned: layouts are those of dense layers. shape: of a sample.
        degree, profile: those of the program that it becomes.

    Raises:
        UnsupportedError: a network that cannot be computed on encrypted numbers, or that has no such layer.
    """
    arrangement = laid_out(model, shape, degree, profile)
    weights = {
        name: weight.detach().double().cpu().numpy() for name, weight in select(model).items() if weight.dim() == 2
    }
    found = Diagonals()
    for laid in arrangement.maps:
        for source, one in laid.reads.items():
            for name, weight in weights.items():
                if name not in found.groups and _scaled(weight, one.matrix):
                    which, _ = diagonals(one.layout, laid.spread, laid.shifts[source])
                    found.groups[name] = torch.from_numpy(which)
                    found.lines[name] = _lines(laid.shifts[source], laid.splits[source], laid.spread.slots)
    if not found.groups:
        raise UnsupportedError("no linear layer of the network is multiplied as it stands, so none has diagonals")
    return found


def diagonal_groups(
    model: nn.Module, shape: tuple[int, ...], *, degree: int, profile: str = "precise"
) -> dict[str, Tensor]:
    """The groups of :func:`diagonals_of` alone."""
    return diagonals_of(model, shape, degree=degree, profile=profile).groups


def _scaled(weight: np.ndarray, matrix: np.ndarray) -> bool:
    """Whether a matrix is the weight with rows and columns scaled: normalisation behind it, a polynomial before it."""
    if weight.shape != matrix.shape or not np.array_equal(weight != 0, matrix != 0) or not weight.any():
        return False
    ratio = np.divide(matrix, weight, out=np.zeros_like(matrix), where=weight != 0)
    row, column = np.count_nonzero(weight, 1).argmax(), np.count_nonzero(weight, 0).argmax()
    if ratio[row, column] == 0:
        return False
    product = ratio[:, column, None] * ratio[None, row] / ratio[row, column]
    return bool(np.allclose(product[weight != 0], ratio[weight != 0], rtol=CLOSE, atol=0.0))


def _lines(shifts: np.ndarray, split: Split, slots: int) -> Tensor:
    """The giant and the baby of each shift."""
    at = {(giant + baby) % slots: (giant, baby) for giant, babies in split.terms for baby in babies}
    return torch.tensor([at[int(shift)] for shift in shifts])
