"""Which channels of a network are left: what a narrowed plan says beside its entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewbits.errors import RecipeError

KEPT = "_fewbits_channels"  # an attribute of the root module: what is left of which larger network


@dataclass(frozen=True, eq=False)
class ChannelMasks:
    """Which channels of a larger network a plan's tensors are the rest of.

    Attributes:
        kept: ``{tensor name: for each dimension a bool mask of the larger size, true for what stays, or ``None`` where
            all do}``. Given masks that keep everything, and tensors that lost nothing, are left out.
        paddings: ``{path of a layer that pads channels with zeros: how many it pads now, before and behind}``.
    """

    kept: Mapping[str, tuple[Tensor | None, ...]]
    paddings: Mapping[str, tuple[int, int]]

    def __post_init__(self) -> None:
        for name, masks in self.kept.items():
            if any(m is not None and (m.dtype != torch.bool or m.dim() != 1) for m in masks):
                raise RecipeError(f"{name}: kept channels are a vector of truth values for each dimension")
        lossy = {
            name: tuple(None if m is None or bool(m.all()) else m.cpu() for m in masks)
            for name, masks in self.kept.items()
        }
        found = {name: masks for name, masks in lossy.items() if any(m is not None for m in masks)}
        object.__setattr__(self, "kept", found)

    def full(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the larger network of a tensor that has this shape now."""
        masks = self.kept.get(name, (None,) * len(shape))
        return tuple(size if m is None else len(m) for size, m in zip(shape, masks, strict=True))

    def fits(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape is what is left of one of the larger network."""
        masks = self.kept.get(name, (None,) * len(shape))
        return len(masks) == len(shape) and all(
            m is None or int(m.sum()) == size for size, m in zip(shape, masks, strict=True)
        )

    def spread(self, name: str, values: Tensor) -> Tensor:
        """A bool tensor of the tensor's shape now, in the larger network: false where channels are gone."""
        masks = self.kept.get(name, (None,) * values.dim())
        full = values.new_zeros(self.full(name, tuple(values.shape)))
        lengths = zip(values.shape, masks, strict=True)
        places = [torch.arange(size) if m is None else m.nonzero().flatten() for size, m in lengths]
        full[torch.meshgrid(*places, indexing="ij")] = values
        return full

    def then(self, later: ChannelMasks) -> ChannelMasks:
        """Both removals in one: these channels first, and ``later`` of what they leave."""
        kept = dict(self.kept)
        for name, masks in later.kept.items():
            kept[name] = tuple(map(_both, self.kept.get(name, (None,) * len(masks)), masks))
        return ChannelMasks(kept, {**self.paddings, **later.paddings})

    def equals(self, other: ChannelMasks | None) -> bool:
        """Whether both say the same."""
        if other is None or set(self.kept) != set(other.kept) or dict(self.paddings) != dict(other.paddings):
            return False
        return all(
            len(masks) == len(other.kept[name])
            and all(
                a is b or (a is not None and b is not None and torch.equal(a, b))
                for a, b in zip(masks, other.kept[name], strict=True)
            )
            for name, masks in self.kept.items()
        )


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    both = first.clone()
    both[first] = second
    return both


def channels_of(model: nn.Module) -> ChannelMasks | None:
    """Of which larger network this one is the rest, as :func:`fewbits.channels.prune_channels` left it.

    ``None`` if it lost nothing.
    """
    found = model.__dict__.get(KEPT)
    return found if isinstance(found, ChannelMasks) else None
