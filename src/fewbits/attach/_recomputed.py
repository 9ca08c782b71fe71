"""What holders make of weights is not kept for the backward pass, but made again there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fewbits.attach.attach import held

MADE = "_fewbits_made"
"""Attribute of a value: the holder that made it, and of which weight."""


class _Again(NamedTuple):
    """How to make a value, or a view of it, once more."""

    holder: nn.Module
    weight: Tensor
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Kept(NamedTuple):
    """Any other tensor; autograd does not watch the versions of what hooks keep."""

    tensor: Tensor
    version: int
    name: str


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Around a forward and a backward pass of an attached network: saves the memory of all its held values.

    Until the backward pass has used a value, neither its weight nor its plan may change.
    """
    hooks = [holder.register_forward_hook(_mark) for holder in held(model).values()]
    try:
        with saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _mark(holder: nn.Module, inputs: tuple[Tensor, ...], value: Tensor) -> None:
    setattr(value, MADE, (holder, inputs[0]))


def _pack(tensor: Tensor) -> _Again | _Kept:
    made = getattr(tensor if tensor._base is None else tensor._base, MADE, None)
    if made is not None:
        holder, weight = made
        return _Again(holder, weight, tensor.size(), tensor.stride(), int(tensor.storage_offset()))
    name = "a leaf" if tensor.grad_fn is None else f"output {tensor.output_nr} of {tensor.grad_fn.name()}"
    return _Kept(tensor.detach(), tensor._version, name)  # itself it would keep its own graph alive for ever


@torch.no_grad()
def _unpack(packed: _Again | _Kept) -> Any:
    if isinstance(packed, _Again):
        value = packed.holder(packed.weight.detach())
        return value.as_strided(packed.size, packed.stride, packed.offset)
    if packed.tensor._version != packed.version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{packed.name} is at version {packed.tensor._version}; expected version {packed.version} instead"
        )
    return packed.tensor
