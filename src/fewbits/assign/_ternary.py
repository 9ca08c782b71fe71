"""Entropy-constrained ternarization with trained centroids: EC2T.

Source: Marban, Becking, Wiedemann, Samek, "Learning Sparse & Ternary Neural Networks with
Entropy-Constrained Trained Ternarization (EC2T)", arXiv 2004.01077.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fewbits.assign._entropy import entropy_assigner
from fewbits.assign._entropy_state import CodebookState
from fewbits.assign._grid import flat
from fewbits.assign._rate import Rate
from fewbits.assign.assigner import Assigner
from fewbits.errors import RecipeError


def ternary(
    lam: float = 0.05,
    *,
    reach: float = 0.5,
    scale: str = "min",
    sustain: float = 0.05,
    zero_floor: float | None = None,
) -> Assigner:
    """Each weight becomes ``w_n``, 0 or ``w_p`` by ``argmin_c (w - w_c)**2 - lambda(l) * log2 P_c``.

    ``init`` sets ``w_n = reach * min W`` and ``w_p = reach * max W``. The training loop trains the two and
    hands them back before the next update: ``state = with_codebooks(state, {name: (w_n, 0, w_p)})``. A side
    without weights starts as the mirror image of the other, and an all-zero layer with -1 and 1. Scores are
    ignored.

    Args:
        lam, scale, sustain, zero_floor: as for :func:`fewbits.assign.ecq`; EC2T has
            ``scale="min"``, and its released code ``zero_floor=0.5``.
        reach: centroids relative to the outermost weights, in (0, 1].

    Raises:
        RecipeError: an impossible option.
        NonFiniteError: from ``init`` and ``update``, naming the layer.
    """
    if not 0 < reach <= 1:
        raise RecipeError(f"reach must lie in (0, 1], got {reach}")
    rate = Rate(lam, scale, sustain, zero_floor)

    def init_layer(name: str, weight: Tensor) -> CodebookState:
        _, low, high = flat(name, weight)
        negative, positive = float(np.float32(reach * low)), float(np.float32(reach * high))
        if not negative < 0:
            negative = -positive if positive > 0 else -1.0
        if not positive > 0:
            positive = -negative
        return CodebookState(codebook=(negative, 0.0, positive))

    return entropy_assigner(2, rate, init_layer)
