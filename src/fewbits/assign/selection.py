"""Exactly which elements of many tensors are the smallest: radix selection in a few streaming passes.

The bits of a non-negative float, read as an integer, rise with its value. So the k-th smallest magnitude is found
digit by digit from histograms of those integers, over any number of tensors on any device, without joining, copying
or sorting them. Histograms add up, so a tensor may be spread over processes, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import NonFiniteError, RecipeError

CHUNK = 1 << 20
"""Elements looked at at once: a few times as many bytes of extra memory, whatever the size of the tensors."""

DIGIT = 11  # bits of an integer that one pass finds


@dataclass(frozen=True)
class Shards:
    """How tensors are spread over processes: process r holds the r-th stretch of each (in index order).

    Attributes:
        gather: an int64 tensor of this process -> [processes, ...] with those of all.
        rank: of this process.
    """

    gather: Callable[[Tensor], Tensor]
    rank: int

    @staticmethod
    def over(accelerator: Any) -> Shards:
        """Over the processes of ``accelerate``."""

        def gather(x: Tensor) -> Tensor:
            found: Tensor = accelerator.gather(x.to(accelerator.device).unsqueeze(0))
            return found.cpu()

        return Shards(gather, accelerator.process_index)


WHOLE = Shards(lambda x: x.unsqueeze(0), 0)


@dataclass(frozen=True)
class Cut:
    """Which elements of one tensor are chosen: those with an integer below ``key``, and the first ``ties`` equal to it.

    Attributes:
        key: the bits of a magnitude (float32, or float64 for float64 tensors). ties: lowest indices first.
    """

    key: int
    ties: int

    @property
    def threshold(self) -> float:
        """The magnitude of a float32 key."""
        return float(torch.tensor(self.key, dtype=torch.int32).view(torch.float32))


def smallest(
    values: Sequence[Tensor],
    count: int,
    *,
    limits: Sequence[int] | None = None,
    already_pruned: Sequence[Tensor | None] | None = None,
    names: Sequence[str] | None = None,
    shards: Shards = WHOLE,
) -> list[Cut]:
    """The ``count`` elements of smallest magnitude, of all tensors together; ties by order of tensors, then index.

    Args:
        values: floating-point tensors; float64 ones are compared as float64, all others as float32, never mixed.
        count: how many are chosen, exactly.
        limits: of each tensor no more than so many (its smallest); default: all.
        barred: of each tensor, a bool tensor: these are chosen anyway, count among the ``count`` and rank before all.
        names: of the tensors, for errors.
        shards: how the tensors are spread over processes; ``limits`` are those of whole tensors.

    Returns:
        One cut per tensor, for :func:`chosen`.

    Raises:
        NonFiniteError: NaN or infinity in a tensor. RecipeError: ``count`` is impossible.
    """
    if not values:
        if count:
            raise RecipeError(f"{count} elements cannot be chosen of no tensor")
        return []
    bars = list(already_pruned) if already_pruned is not None else [None] * len(values)
    bits = 63 if values[0].dtype == torch.float64 else 31
    out = torch.tensor([0 if bar is None else int(bar.sum()) for bar in bars])
    sizes = torch.tensor([v.numel() for v in values])
    totals = shards.gather(torch.stack([out, sizes])).sum(0)
    base = totals[0]
    most = totals[1] if limits is None else torch.minimum(totals[1], torch.tensor(list(limits)).clamp_min(0))
    most = torch.maximum(most, base)
    if not int(base.sum()) <= count <= int(most.sum()):
        raise RecipeError(f"{count} elements cannot be chosen: between {int(base.sum())} and {int(most.sum())} can")
    key, below, equal, here = _descend(values, bars, base, most, count, bits, names, shards)
    own = torch.minimum(below, most)
    left = count - int(own.sum())
    cuts = []
    for i in range(len(values)):
        if below[i] > most[i]:  # the limit of this tensor is lower than the common threshold
            own_key, under, _, ours = _descend(
                values[i : i + 1], bars[i : i + 1], base[i : i + 1], most[i : i + 1], int(most[i]), bits, None, shards
            )
            ties = int(most[i] - under[0])
            cuts.append(Cut(own_key, _share(ties, ours[:, 0], shards.rank)))
            continue
        ties = min(left, int(torch.minimum(below[i] + equal[i], most[i]) - below[i]))
        left -= ties
        cuts.append(Cut(key, _share(ties, here[:, i], shards.rank)))
    return cuts


def chosen(values: Tensor, cut: Cut, already_pruned: Tensor | None = None) -> Tensor:
    """The elements that a cut chooses, as a bool tensor of the shape of ``values``."""
    found = torch.empty(values.numel(), dtype=torch.bool, device=values.device)
    ties = cut.ties
    for part, keys, bar in _chunks(values, already_pruned):
        view = found[part]
        torch.lt(keys, cut.key, out=view)
        if ties:
            equal = keys == cut.key
            if bar is not None:
                equal &= ~bar
            places = equal.nonzero().view(-1)[:ties]
            view[places] = True
            ties -= len(places)
        if bar is not None:
            view |= bar
    return found.view(values.shape)


def _descend(
    values: Sequence[Tensor],
    bars: Sequence[Tensor | None],
    base: Tensor,
    most: Tensor,
    count: int,
    bits: int,
    names: Sequence[str] | None,
    shards: Shards,
) -> tuple[int, Tensor, Tensor, Tensor]:
    """The key of the count-th smallest, then per tensor: elements below it, equal to it, and the latter by process."""
    below, prefix, high = base.clone(), 0, bits
    infinite = 0x7FF << 52 if bits == 63 else 0xFF << 23
    while high > 0:
        width = min(DIGIT, high)
        low = high - width
        tables = [
            _histogram(v, bar, prefix if high < bits else None, high, low) for v, bar in zip(values, bars, strict=True)
        ]
        every = shards.gather(torch.stack(tables))
        table = every.sum(0)
        if high == bits:
            for i in (table[:, infinite >> low :] > 0).any(1).nonzero().view(-1).tolist():
                raise NonFiniteError(f"weight {names[i]!r} has NaN or infinity" if names else "NaN or infinity")
        reached = torch.minimum(below.unsqueeze(1) + table.cumsum(1), most.unsqueeze(1)).sum(0)
        digit = int(torch.searchsorted(reached, torch.tensor(count)))
        below = below + table[:, :digit].sum(1)
        prefix, high = prefix << width | digit, low
    return prefix, below, table[:, digit], every[:, :, digit]


def _share(ties: int, held: Tensor, rank: int) -> int:
    """How many of the first ``ties`` equal elements are on this process, given how many each one holds."""
    return max(0, min(int(held[rank]), ties - int(held[:rank].sum())))


def _histogram(values: Tensor, bar: Tensor | None, prefix: int | None, high: int, low: int) -> Tensor:
    """How often each digit ``key[low:high]`` occurs among the keys that begin with ``prefix``; int64, on the CPU."""
    size = 1 << (high - low)
    total = torch.zeros(size, dtype=torch.int64, device=values.device)
    for _, keys, already_pruned in _chunks(values, bar):
        if already_pruned is not None:
            keys = keys[~already_pruned]
        if prefix is not None:
            keys = keys[(keys >> high) == prefix] & ((1 << high) - 1)
        if keys.numel():
            total += torch.bincount(keys >> low, minlength=size)
    return total.cpu()


def _chunks(values: Tensor, already_pruned: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """``(where, keys, barred)`` of stretches of a tensor, in index order."""
    flat = values.detach().reshape(-1)
    bar = None if already_pruned is None else already_pruned.reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        part = slice(start, start + CHUNK)
        piece = flat[part]
        if piece.dtype == torch.float64:
            keys = piece.view(torch.int64) & 0x7FFFFFFFFFFFFFFF
        else:
            keys = piece.to(torch.float32).view(torch.int32) & 0x7FFFFFFF
        yield part, keys, None if bar is None else bar[part]
