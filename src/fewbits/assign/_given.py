"""The scores that an assigner is given for a weight: there, of its shape, and finite."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewbits.assign._batched import Query, run_alone
from fewbits.assign.assigner import Scores
from fewbits.errors import NonFiniteError, SelectionError, did_you_mean


def given(name: str, weight: Tensor, scores: Scores) -> Tensor:
    """:func:`giving`, at once."""
    return run_alone(giving(name, weight, scores))


def giving(name: str, weight: Tensor, scores: Scores) -> Query[Tensor]:
    """A copy of the weight's scores: float32, of its shape and on its device.

    Raises:
        SelectionError: none of that name, of another shape, or complex.
        NonFiniteError: NaN or infinity.
    """
    if name not in scores:
        raise SelectionError(f"no scores for weight {name!r}{did_you_mean(name, scores)}")
    score = scores[name]
    if score.shape != weight.shape:
        raise SelectionError(
            f"scores of {name!r} have shape {tuple(score.shape)}, its weight has {tuple(weight.shape)}"
        )
    if score.is_complex():
        raise SelectionError(f"scores of {name!r} must be real, got {score.dtype}")
    fresh = score.detach().to(weight.device, torch.float32, copy=True)
    if fresh.numel() and not np.isfinite((yield torch.stack(torch.aminmax(fresh)))).all():
        raise NonFiniteError(f"scores of {name!r} have NaN or infinity")
    return fresh
