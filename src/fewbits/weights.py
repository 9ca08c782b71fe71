"""Which tensors of a network are compressed: the only place that walks a model's parameters."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from fewbits.errors import NonFiniteError, SelectionError, did_you_mean

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    """``{path: module}`` of every linear and convolutional layer, in definition order.

    A module that is used under two paths appears once, under the first.
    """
    return {path: m for path, m in model.named_modules() if isinstance(m, WEIGHTED)}


def select(model: nn.Module, include: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> dict[str, Tensor]:
    """The weights to compress, as ``{"path.weight": tensor}`` (the tensors themselves, not copies).

    As in ECQx (arXiv 2109.04236, section 5) these are the weights of all convolutional and fully connected
    layers, the first and the last included; biases and normalisation stay floating point.

    Args:
        model: a plain network (call it before :func:`fewbits.attach.attach`).
        include, exclude: shell patterns on the tensor names, for example ``"features.*"``.

    Raises:
        SelectionError: a pattern matches nothing, or nothing is left.
        NonFiniteError: a selected weight holds NaN or infinity.
    """
    found: dict[str, Tensor] = {f"{path}.weight".lstrip("."): m.weight for path, m in layers(model).items()}
    if not found:
        raise SelectionError(f"{type(model).__name__} has no linear or convolutional layer to compress")
    include, exclude = tuple(include), tuple(exclude)
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in found):
            raise SelectionError(f"pattern {pattern!r} matches no weight{did_you_mean(pattern, found)}")
    chosen = {
        name: tensor
        for name, tensor in found.items()
        if any(fnmatchcase(name, p) for p in include) and not any(fnmatchcase(name, p) for p in exclude)
    }
    if not chosen:
        raise SelectionError("the exclude patterns remove every weight that include selects")
    for name, tensor in chosen.items():
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(f"{name}: {bad} of {tensor.numel()} weights are NaN or infinite")
    return chosen


def parameters_of(model: nn.Module) -> int:
    """Number of trainable numbers of a network, shared ones once: what papers call its parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
