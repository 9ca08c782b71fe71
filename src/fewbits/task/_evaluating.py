"""A network while it is evaluated: in evaluation mode, in float32 proper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fewbits.task.modes import in_evaluation


@contextmanager
def float32() -> Iterator[None]:
    """Convolutions on a GPU in float32 proper; its default is TF32, with three decimal digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def evaluating_in_float32(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode meanwhile; gives the device of the network."""
    tensor = next(model.parameters(), None)
    with in_evaluation(model), float32():
        yield torch.device("cpu") if tensor is None else tensor.device
