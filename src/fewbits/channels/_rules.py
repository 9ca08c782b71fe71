"""What operations do to labels of channels. Labels have the shape of the activation, with a batch of one sample.

Reshapes, slices and the like are carried out on the labels themselves. Everything here keeps one promise: labels differ
along one axis of a tensor only, so that what is left after a removal is a tensor again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewbits.channels._labels import FIXED, Labels, varying


@dataclass(frozen=True, eq=False)
class Extent:
    """A size that the forward pass asked a tensor for: ``times`` for each ``per`` along an axis with these labels."""

    labels: Tensor
    per: int = 1
    times: int = 1


def settled(known: Labels, labels: Tensor, free: Sequence[bool | Extent], why: str) -> Tensor:
    """Labels of a fresh tensor, of which some axes cannot get shorter.

    Args:
        free: for each axis whether its size follows what is removed; an :class:`Extent` for one that the forward pass
            computed from other sizes.
    """
    labels = known.roots(labels)
    axes = varying(labels)
    if len(axes) > 1:
        open_axes = [a for a in axes if free[a] is not False]
        if not open_axes:
            known.fix(labels, f"{why} has fixed sizes")
            return torch.zeros_like(labels)
        # Whole slices along one axis go together; an axis that adapts by itself (-1) is preferred.
        along = next((a for a in open_axes if free[a] is True), open_axes[-1])
        rows = labels.movedim(along, 0).flatten(1)
        known.join(rows[:, :1].expand_as(rows), rows, why)
        labels = known.roots(labels)
        axes = varying(labels)
    if axes and free[axes[0]] is not True:
        extent = free[axes[0]]
        if not isinstance(extent, Extent) or not _follows(known, labels, axes[0], extent):
            known.fix(labels, f"{why} has fixed sizes")
            return torch.zeros_like(labels)
    for axis, extent in enumerate(free):
        if isinstance(extent, Extent) and axis not in axes:  # a size that would shrink where none may
            known.fix(extent.labels, f"{why} computes with their number")
    return known.roots(labels)


def pixels(known: Labels, labels: Tensor, why: str) -> Tensor:
    """Labels of what a pixel shuffle gives, ``[..., C, H, W]``: the channels of a pixel go together, and none alone."""
    return settled(known, labels, [True] * (labels.dim() - 2) + [False, False], why)


def _follows(known: Labels, labels: Tensor, axis: int, extent: Extent) -> bool:
    """Whether the extent shrinks just as this axis does, whatever is removed."""
    mine = torch.bincount(_vector(labels, axis), minlength=len(known))
    theirs = torch.bincount(known.roots(extent.labels).reshape(-1), minlength=len(known))
    return torch.equal(mine * extent.per, theirs * extent.times)


def _vector(labels: Tensor, axis: int) -> Tensor:
    """Labels along an axis, where no other varies."""
    return labels.movedim(axis, 0).flatten(1)[:, 0]


def channel_vector(known: Labels, labels: Tensor, axis: int, why: str) -> Tensor:
    """Labels along ``axis``; those that vary along another one are fixed."""
    labels = known.roots(labels)
    if any(a != axis % labels.dim() for a in varying(labels)):
        known.fix(labels, f"{why} runs along another axis than that of channels")
        labels = torch.zeros_like(labels)
    return _vector(labels, axis)


def spread(vector: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """A vector of labels along an axis of a tensor of this shape."""
    view = [1] * len(shape)
    view[axis] = len(vector)
    return vector.reshape(view).expand(*shape)


def combined(known: Labels, a: Tensor, b: Tensor, why: str) -> Tensor:
    """An operation on elements at the same places, after broadcasting: sums, products."""
    a, b = known.roots(a), known.roots(b)
    dims = max(a.dim(), b.dim())
    a, b = (t.reshape([1] * (dims - t.dim()) + list(t.shape)) for t in (a, b))
    shape = torch.broadcast_shapes(a.shape, b.shape)
    mine, theirs = varying(a), varying(b)
    if any(b.shape[axis] > 1 for axis in mine) or any(a.shape[axis] > 1 for axis in theirs):
        known.join(a.expand(shape), b.expand(shape), why)
        return settled(known, a.expand(shape), [axis in (mine or theirs)[:1] for axis in range(dims)], why)
    if mine and theirs:  # an outer product
        known.fix(a, f"{why} is an outer product")
        known.fix(b, f"{why} is an outer product")
        return torch.zeros(shape, dtype=torch.int64)
    return (b if theirs else a).expand(shape)


def product(known: Labels, a: Tensor, b: Tensor, why: str) -> Tensor:
    """Matrix products ``[..., n, k] x [..., k, m]``."""
    a, b = known.roots(a), known.roots(b)
    inner = a.dim() - 1 in varying(a), b.dim() - 2 in varying(b)
    if any(inner):
        left, right = torch.broadcast_tensors(a[..., 0, :], b[..., :, 0])
        known.join(left, right, why)
    left = torch.zeros_like(a[..., :1]) if inner[0] else a[..., :1]
    right = torch.zeros_like(b[..., :1, :]) if inner[1] else b[..., :1, :]
    return combined(known, left, right, why)


def softened(known: Labels, labels: Tensor, axis: int, why: str) -> Tensor:
    """Softmax, or a running sum, along an axis, which no channel may leave."""
    labels = known.roots(labels)
    if axis % labels.dim() in varying(labels):
        known.fix(labels, f"{why} normalises or runs over channels")
    return known.roots(labels)


def reduced(known: Labels, labels: Tensor, axes: Sequence[int], keep: bool, why: str) -> Tensor:
    """Sums, means and maxima over axes, which no channel may leave."""
    labels = known.roots(labels)
    if any(a % labels.dim() in varying(labels) for a in axes):
        known.fix(labels, f"{why} runs over channels")
        labels = torch.zeros_like(labels)
    return labels.amax(tuple(axes), keepdim=keep)


def sliced(known: Labels, labels: Tensor, index: Any, why: str) -> Tensor:
    """Indexing. Only what takes an axis of channels whole leaves them removable."""
    labels = known.roots(labels)
    axes = varying(labels)
    found: Tensor = labels[index]
    if axes:
        whole = [a for a in varying(found) if found.shape[a] == labels.shape[axes[0]]]
        kept = (
            bool(whole)
            and not _listed(index, axes[0])
            and torch.equal(_vector(found, whole[0]), _vector(labels, axes[0]))
        )
        if not kept:
            known.fix(labels, f"{why} takes channels by their numbers")
            return torch.zeros_like(found)
    return found


def _listed(index: Any, axis: int) -> bool:
    """Whether an index lists places along an axis: even where it lists all of them, it names each."""
    parts = index if isinstance(index, tuple) else (index,)
    listed = [place for place, part in enumerate(parts) if isinstance(part, list | Tensor)]
    plain = all(isinstance(part, int | slice | list | Tensor) for part in parts)
    return bool(listed) and (not plain or axis in listed)


def picked(known: Labels, labels: Tensor, found: Tensor, axis: int, why: str) -> Tensor:
    """Some places along an axis, in any order; ``found`` are their labels. Channels stay where they are picked."""
    if axis % labels.dim() in varying(known.roots(labels)):
        known.fix(labels, f"{why} takes channels by their numbers")
    return known.roots(found)


def chunked(known: Labels, labels: Tensor, parts: Sequence[Tensor], axis: int, why: str) -> tuple[Tensor, ...]:
    """Equal parts along an axis: the same places of all parts go together. ``parts`` are slices of ``labels``."""
    if axis % labels.dim() in varying(known.roots(labels)):
        if any(part.shape != parts[0].shape for part in parts):
            known.fix(labels, f"{why} makes unequal parts")
            return tuple(known.roots(part) for part in parts)
        for part in parts[1:]:
            known.join(parts[0], part, why)
    return tuple(known.roots(part) for part in parts)


def shuffled(known: Labels, labels: Tensor, groups: int, why: str) -> Tensor:
    """Channels of equal groups in turn: the same places of all groups go together."""
    rows = channel_vector(known, labels, 1, why).reshape(groups, -1)
    known.join(rows[:1].expand_as(rows), rows, why)
    return known.roots(labels)


def stacked(known: Labels, parts: Sequence[Tensor], axis: int, why: str) -> Tensor:
    """Side by side along a new axis: the same places of all of them go together."""
    found = torch.stack([known.roots(part) for part in parts], axis)
    new = axis % found.dim()
    along = next((a for a in varying(found) if a != new), None)
    return settled(known, found, [a == along for a in range(found.dim())], why)


def concatenated(known: Labels, parts: Sequence[Tensor], axis: int, why: str) -> Tensor:
    """One behind the other along an axis, which may be that of the channels."""
    parts = [known.roots(part) for part in parts]
    found = torch.cat(list(parts), axis)
    along = next((axes[0] for part in parts if (axes := varying(part))), axis % found.dim())
    return settled(known, found, [a == along for a in range(found.dim())], why)


def padded(before: Tensor, after: Tensor, labels: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Labels of channels with those of zeros before and behind them, spread over ``shape``."""
    return spread(torch.cat([before, _vector(labels, axis), after]), axis, shape)


def of_constant(value: Any) -> Tensor:
    """Labels of what is no activation: a number, or a tensor of the network's own."""
    shape = value.shape if isinstance(value, Tensor) else ()
    return torch.full(tuple(shape), FIXED, dtype=torch.int64)
