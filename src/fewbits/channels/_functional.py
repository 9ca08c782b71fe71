"""Layers written as functions of a module's own tensors: what is laid out anew, standardised, and multiplied with."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.channels import _rules as rules
from fewbits.channels._carried import Held
from fewbits.channels._labels import varying
from fewbits.channels._layers import weighted
from fewbits.channels._ledger import Ledger
from fewbits.weights import WEIGHTED, is_turned

CONVOLVED: dict[Any, type[nn.Module]] = {
    F.conv1d: nn.Conv1d, F.conv2d: nn.Conv2d, F.conv3d: nn.Conv3d, F.linear: nn.Linear,
    torch.conv1d: nn.Conv1d, torch.conv2d: nn.Conv2d, torch.conv3d: nn.Conv3d,
}  # fmt: skip


def laid_out(ledger: Ledger, held: Held, shape: tuple[int, ...], free: Sequence[bool], why: str) -> Held | None:
    """A tensor of the network's own in another shape that has its channels along one axis; ``None`` for any other.

    These are a vector with axes of size 1 beside it, and rows whose numbers are laid out in a row.

    Args:
        free: for each axis of the shape whether it may get shorter.
    """
    tensor = held.tensor
    long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
    dim = long[0] if len(long) == 1 else 0
    if not long or (held.along is not None and held.along[1] != dim):
        return None
    places = [a for a, size in enumerate(shape) if size == tensor.shape[dim] and prod(shape[:a]) == 1 and free[a]]
    if not places or tensor.numel() != prod(shape):
        return None
    for other in range(tensor.dim()):
        if other != dim and tensor.shape[other] > 1:
            ledger.known.fix(ledger.axis(tensor, other), f"{why} takes rows as a whole")
    return Held(tensor, shape, (places[0], dim))


def labels_of(ledger: Ledger, held: Held) -> Tensor:
    """Labels of a tensor that was laid out."""
    assert held.along is not None
    axis, dim = held.along
    return rules.spread(ledger.known.roots(ledger.axis(held.tensor, dim)), axis, held.shape)


def layer_of(
    ledger: Ledger, module: nn.Module, path: str, target: Any, given: Sequence[Any], shape: tuple[int, ...], why: str
) -> Any:
    """A module's own convolution or linear layer by a function, with its weight as it is or computed row by row.

    Args:
        given: labels of the input, then of weight and bias labels, a :class:`Held`, or ``None``.
    """
    x, weight, bias = given
    if not isinstance(module, WEIGHTED) or not isinstance(module, CONVOLVED[target]):
        return NotImplemented
    own, other = module.weight, module.bias
    if not (bias is None if other is None else isinstance(bias, Held) and bias.tensor is other):
        return NotImplemented
    if isinstance(weight, Held):
        if weight.tensor is not own or weight.along is not None:
            return NotImplemented
    else:
        rows = ledger.known.roots(ledger.axis(own, 0))
        if weight.shape != own.shape or not torch.equal(_rows(ledger, weight), rows):
            return NotImplemented
    return weighted(ledger, module, path, x, shape, why)


def _rows(ledger: Ledger, weight: Tensor) -> Tensor:
    found = ledger.known.roots(weight)
    return found.flatten(1)[:, 0] if varying(found) in ([], [0]) else torch.full((len(found),), -1)


def turned(ledger: Ledger, module: nn.Module, path: str, given: Sequence[Any], shape: tuple[int, ...], why: str) -> Any:
    """``bias + x weight`` of transformers' ``Conv1D``, whose weight is ``[inputs, outputs]``.

    Args:
        given: a :class:`Held` of the bias, labels of the input, a :class:`Held` of the weight.
    """
    bias, x, weight = given
    if not is_turned(module) or not isinstance(bias, Held) or not isinstance(weight, Held):
        return NotImplemented
    if bias.tensor is not module.bias or weight.tensor is not module.weight:
        return NotImplemented
    known, own = ledger.known, weight.tensor
    ledger.join(own, 0, rules.channel_vector(known, x, x.dim() - 1, why), why)
    ledger.outputs.setdefault(id(own), f"{path}.weight")
    ledger.turned.add(id(own))
    outputs = ledger.axis(own, 1)
    ledger.join(bias.tensor, 0, outputs, why)
    return rules.spread(known.roots(outputs), len(shape) - 1, shape)
