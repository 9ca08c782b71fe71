"""Classification: ``[n, classes]`` scores, and one class index per sample."""

from __future__ import annotations

from torch import Tensor

from fewbits.errors import DataError


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Raise DataError unless there is one class index, within the network's outputs, per sample."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise DataError(
            f"the network gives outputs of shape {tuple(logits.shape)} and the data targets of shape "
            f"{tuple(targets.shape)}; [samples, classes] and [samples] are needed"
        )
    if targets.is_floating_point():
        raise DataError(f"targets must be class indices, got {targets.dtype} numbers")
    if not targets.numel():
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= logits.shape[1]:
        worst = low if low < 0 else high
        raise DataError(f"the data has class {worst}, but the network has {logits.shape[1]} outputs (0 is the first)")
