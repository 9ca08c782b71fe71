"""Statistics of their own again for normalisations that a file holds as scale and shift, before they train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from fewbits.attach import evaluating
from fewbits.task import run
from fewbits.task.modes import stays
from fewbits.train._norm_statistics import ChannelMoments, moments_of, norms_of, watching
from fewbits.weights import shared


@torch.no_grad()
def unmerge_statistics(model: nn.Module, inputs: Iterable[Any]) -> int:
    """Give batch normalisations whose statistics were merged those of their inputs, in place.

    Files hold a normalisation as scale and shift (``merge_normalisation``): loaded, its mean is 0 and its variance 1.
    That computes the same in evaluation mode. In training mode, which divides by the deviation of each batch, it does
    not. With mean m and variance v of real inputs, scale times ``sqrt((v + eps) / (1 + eps))`` and shift plus
    ``scale m / sqrt(1 + eps)``, it computes the same in both, up to what batches differ.

    :func:`fewbits.train` and :func:`fewbits.compress` do this themselves; a training loop of one's own wants it before.

    Args:
        model: a loaded network, on any device; all others are left alone. inputs: of some batches. None is asked for
            where nothing was merged.

    Returns:
        The number of normalisations that changed. Those that no input reaches stay, and those that do not train.
    """
    merged = {path: norm for path, norm in norms_of(model).items() if _is_merged(norm) and not stays(norm)}
    several = {module for module, _ in shared(model)}
    merged = {path: norm for path, norm in merged.items() if norm not in several}
    if not merged:
        return 0
    seen: dict[str, ChannelMoments] = {}

    def note(path: str, norm: nn.Module, x: torch.Tensor) -> None:
        seen[path] = seen[path].and_then(moments_of(x)) if path in seen else moments_of(x)

    place = next(model.parameters()).device
    with evaluating(model), watching(merged, note):
        for one in inputs:
            run(model, send_to_device(one, place))
    for path, found in seen.items():
        norm = merged[path]
        mean, variance = found.mean.to(place), found.variance.to(place)
        known = torch.isfinite(mean) & torch.isfinite(variance)
        mean, variance = torch.where(known, mean, 0.0), torch.where(known, variance, 1.0)
        scale, whole = norm.weight.double(), 1.0 + norm.eps
        norm.bias.copy_(norm.bias.double() + scale * mean / whole**0.5)
        norm.weight.copy_(scale * ((variance + norm.eps) / whole).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return len(seen)


def _is_merged(norm: Any) -> bool:
    """Whether statistics are in its scales and shifts: before any training these are the same for all channels."""
    if norm.weight is None or bool(norm.running_mean.any()) or not bool((norm.running_var == 1).all()):
        return False
    if len(norm.weight) == 1:
        return not (norm.weight.item() in (0, 1) and norm.bias.item() == 0)
    return not bool((norm.weight == norm.weight[0]).all() and (norm.bias == norm.bias[0]).all())
