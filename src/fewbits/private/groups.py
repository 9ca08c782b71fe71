"""Which weights lie on one generalized diagonal: together they cost one product, and with them a rotation may go."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.errors import UnsupportedError
from fewbits.hardware.packing import diagonals
from fewbits.private.compile import laid_out
from fewbits.weights import select


def diagonal_groups(
    model: nn.Module, shape: tuple[int, ...], *, degree: int, profile: str = "precise"
) -> dict[str, Tensor]:
    """For each linear layer that is multiplied as it stands, the number of the diagonal of each of its weights.

    A layer that is multiplied together with a neighbour, since no square is between them, has none of its own; nor have
    convolutions, whose weights lie on several.

    Args:
        model: the network before anything is pruned: layouts are those of dense layers. shape: of a sample.
        degree, profile: those of the program that it becomes.

    Returns:
        By the weight's name, int64 of its shape.

    Raises:
        UnsupportedError: a network that cannot be computed on encrypted numbers, or that has no such layer.
    """
    arrangement = laid_out(model, shape, degree, profile)
    weights = {name: weight.detach().double().numpy() for name, weight in select(model).items() if weight.dim() == 2}
    found = {}
    for laid in arrangement.maps:
        for source, matrix in laid.map.matrices.items():
            for name, weight in weights.items():
                if weight.shape == matrix.shape and np.array_equal(weight, matrix):
                    which, _ = diagonals(arrangement.layouts[source], laid.spread, laid.shifts[source])
                    found[name] = torch.from_numpy(which)
    if not found:
        raise UnsupportedError("no linear layer of the network is multiplied as it stands, so none has diagonals")
    return found
