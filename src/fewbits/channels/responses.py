"""Global response normalisation, which divides by a mean over channels: numbers that make up for those removed.

With g the norm of a channel over places it gives ``x + bias + weight * x * g / (mean(g) + eps)`` (Woo et al. 2023,
arXiv 2301.00808, section 3). Without channels that are zero, C of C0 are left and the mean is C0 / C times as large.
So is the whole denominator with ``eps * C0 / C``, and a weight times C0 / C makes up for it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

WHOLE = "_fewbits_whole"
"""Attribute of such a layer that has lost channels: how many there were, and ``eps`` then."""


def is_response(module: nn.Module) -> bool:
    """Whether a module is timm's ``GlobalResponseNorm``, or one of that name and those attributes."""
    own = vars(module)
    named = type(module).__name__ == "GlobalResponseNorm" and type(own.get("eps")) is float
    return named and isinstance(getattr(module, "weight", None), Tensor) and module.weight.dim() == 1  # type: ignore[operator]


def with_fewer(module: Any, kept: Tensor) -> dict[str, Any]:
    """The attributes that change where channels go.

    Args:
        kept: bool, the channels that stay of those that the layer has.
    """
    count, eps = getattr(module, WHOLE, (len(kept), module.eps))
    return {WHOLE: (count, eps), "eps": eps * count / int(kept.sum())}


def factor(kept: Tensor) -> float:
    """What the weight of such a layer is multiplied with."""
    return len(kept) / int(kept.sum())
