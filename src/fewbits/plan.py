"""What each tensor of a network becomes: the artefact that is trained, written, read and reported.

A :class:`Plan` is frozen data and needs no network. Zero is a cluster like any other, so a pruned weight and
a weight quantized to zero are the same thing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.approximation import Approximation
from fewbits.channel_masks import ChannelMasks
from fewbits.errors import RecipeError

MAX_BITS = 16


@dataclass(frozen=True, eq=False)
class Clustered:
    """A tensor of which every element sits in one of a few clusters.

    Attributes:
        levels: int16 tensor of the weight's shape, on the CPU or any device. Level 0 is the zero cluster.
        step: for a uniform grid, element = ``levels * step`` in float32; ``None`` with a codebook.
        codebook: values of the clusters ``lowest, lowest + 1, ...`` (float32 precision); ``None`` with a step.
        lowest: the level of the codebook's first value (ternary: -1). Unused (0) with a step.
        bits: bit width of the grid: levels lie in ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``.
        base: float32 tensor of the weight's shape that the clusters are added to; ``None`` for none. Then they are
            differences to the same tensor of another network.
    """

    levels: Tensor
    bits: int
    step: float | None = None
    codebook: tuple[float, ...] | None = None
    lowest: int = 0
    base: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.step is None) == (self.codebook is None):
            raise RecipeError("a clustered tensor has either a step or a codebook")
        if not 2 <= self.bits <= MAX_BITS:
            raise RecipeError(f"bits must lie in 2..{MAX_BITS}, got {self.bits}")
        if self.levels.dtype != torch.int16:
            raise RecipeError(f"levels must be int16, got {self.levels.dtype}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.levels.shape)

    @property
    def kept(self) -> Tensor:
        """Where the tensor is not zero (or differs from its base): bool, of the weight's shape."""
        if self.codebook is None:
            return self.levels != 0
        return self.own() != 0

    def values(self) -> Tensor:
        """The float32 tensor that the network computes with, of the weight's shape."""
        return _added(self.own(), self.base)

    def own(self) -> Tensor:
        """The same without the base: the clusters alone."""
        if self.codebook is not None:
            table = torch.tensor(self.codebook, dtype=torch.float32, device=self.levels.device)
            return table[self.levels.long() - self.lowest]
        step = torch.tensor(self.step, dtype=torch.float32, device=self.levels.device)
        return self.levels.to(torch.float32) * step


def surviving(weight: Tensor, mask: Tensor, shrink: float = 0.0) -> Tensor:
    """What a pruned network computes with: the weight where ``mask`` is true, an exact zero elsewhere.

    With a threshold t in ``shrink`` the survivors come out as ``sign(w) (|w|**3 - t**3)**(1/3)``, which takes almost
    nothing from a large weight and goes to zero, without a jump, at t (Feather, Glentis Georgoulakis et al. 2023).

    Args:
        weight: float tensor. mask: bool tensor of its shape. shrink: t >= 0, in the weight's unit; 0 changes nothing.
    """
    if shrink > 0:
        # |w| (1 - (t/|w|)^3)^(1/3): the cube of a small float32 would be zero.
        share = (shrink / weight.abs().clamp_min(shrink)).pow_(3).neg_().add_(1.0)
        weight = weight * share.pow_(1 / 3)
    return torch.where(mask, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))


@dataclass(frozen=True, eq=False)
class Masked:
    """A pruned tensor: floating-point numbers where the mask is true, exact zeros elsewhere.

    Attributes:
        data: float32 tensor of the weight's shape, or float16/bfloat16: the file holds the survivors in this
            precision. What stands under a false mask does not matter.
        mask: bool tensor of the same shape on the same device, true for a survivor.
        shrink: only for training, in no file: the threshold with which :func:`surviving` makes the survivors from
            the float weight; ``data`` has been through it.
        through: only for training: the share of its gradient that a pruned weight gets. With 0 it cannot come back.
        base: what the survivors are differences to, as of :class:`Clustered`.
    """

    data: Tensor
    mask: Tensor
    shrink: float = 0.0
    straight_through: float = 0.0
    base: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or not self.data.is_floating_point():
            raise RecipeError(f"a masked tensor is floats and a bool mask, got {self.data.dtype} and {self.mask.dtype}")
        if self.mask.shape != self.data.shape:
            raise RecipeError(
                f"a masked tensor of shape {tuple(self.data.shape)} has a mask of shape {tuple(self.mask.shape)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def kept(self) -> Tensor:
        """The mask."""
        return self.mask

    def values(self) -> Tensor:
        """The tensor that the network computes with; half precision is widened to float32."""
        return _added(self.own(), self.base)

    def own(self) -> Tensor:
        """The same without the base: the survivors alone."""
        return surviving(_widened(self.data), self.mask)


@dataclass(frozen=True, eq=False)
class Dense:
    """A tensor kept as floating-point (or integer) numbers: biases, normalisation, unselected weights.

    Attributes:
        data: the tensor. float16 here means that the file holds 16 bits; ``values()`` is float32 then.
        base: what the numbers are differences to, as of :class:`Clustered`.
    """

    data: Tensor
    base: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    def values(self) -> Tensor:
        """The tensor that the network computes with; half-precision entries are widened to float32."""
        return _added(self.own(), self.base)

    def own(self) -> Tensor:
        """The same without the base: the numbers alone."""
        return _widened(self.data)


@dataclass(frozen=True, eq=False)
class Affine:
    """A weight of integers with a scale for each channel: element = ``levels * scales[channel]`` in float32.

    Symmetric (the zero point of a weight is 0), so a convolution of it needs no correction term. ``docs/design.md``
    says where the zero points of activations are.

    Attributes:
        levels: int8 tensor of the weight's shape, within ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``.
        scales: float32 tensor [channels], finite and positive.
        axis: which dimension the channels are; 0 is a layer's outputs.
        bits: bit width of the levels, 2 to 8.
    """

    levels: Tensor
    scales: Tensor
    axis: int = 0
    bits: int = 8
    base: None = None
    """Integers are no differences: an integer form has names and shapes of its own."""

    def __post_init__(self) -> None:
        if self.levels.dtype != torch.int8 or self.scales.dtype != torch.float32:
            raise RecipeError(
                f"an affine tensor is int8 levels and float32 scales, got {self.levels.dtype} and {self.scales.dtype}"
            )
        if not 2 <= self.bits <= 8:
            raise RecipeError(f"an affine tensor has 2..8 bits, got {self.bits}")
        if not 0 <= self.axis < self.levels.dim() or self.scales.shape != self.levels.shape[self.axis : self.axis + 1]:
            raise RecipeError(
                f"an affine tensor of shape {tuple(self.levels.shape)} cannot have scales of shape "
                f"{tuple(self.scales.shape)} along axis {self.axis}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.levels.shape)

    @property
    def kept(self) -> Tensor:
        """Where the tensor is not zero: bool, of the weight's shape."""
        return self.levels != 0

    def values(self) -> Tensor:
        """The float32 tensor that the network computes with, of the weight's shape."""
        shape = [1] * self.levels.dim()
        shape[self.axis] = -1
        return self.levels.to(torch.float32) * self.scales.view(shape)


def _widened(data: Tensor) -> Tensor:
    return data.float() if data.dtype in (torch.float16, torch.bfloat16) else data


def _added(own: Tensor, base: Tensor | None) -> Tensor:
    """One addition in float32 on every machine: what is decoded must be what was written, to the last bit."""
    return own if base is None else base.to(own.device) + own


Compressed = Clustered | Masked | Affine
Entry = Compressed | Dense


def unchanged(entry: Entry) -> bool:
    """Whether an entry is its base, bit for bit, whatever the kind of the differences that it has none of."""
    return entry.base is not None and not bool(entry.own().any())


def _plainest(entry: Entry) -> Entry:
    """What does not differ from its base has no kind of its own: a file says no more of it than that."""
    if entry.base is None or not unchanged(entry):
        return entry
    return Dense(torch.zeros_like(entry.base), entry.base)


class Plan(Mapping[str, Entry]):
    """An immutable, ordered mapping from tensor names to what they become.

    Args:
        entries: by tensor name.
        channels: for a network that lost channels, of which larger one; the entries have the smaller shapes.
        aliases: ``{another name: name of an entry}`` of tensors that the network has under several names.
        approximations: what the network computes in place of its operations, by the operation's name.

    Raises:
        RecipeError: ``channels`` does not fit the shape of an entry, or an alias is an entry or names none.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        channels: ChannelMasks | None = None,
        aliases: Mapping[str, str] | None = None,
        approximations: Mapping[str, Approximation] | None = None,
    ) -> None:
        self._entries = dict(entries)
        self.channels = channels
        self.aliases = dict(aliases or {})
        self.approximations = dict(approximations or {})
        for name, found in self.approximations.items():
            if name != found.operation:
                raise RecipeError(f"{found} cannot stand for {name!r}")
        for other, name in self.aliases.items():
            if other in self._entries or name not in self._entries:
                raise RecipeError(f"{other!r} cannot be another name of {name!r}: one is an entry, the other is not")
        for name in channels.kept if channels is not None else ():
            assert channels is not None
            if name in self._entries and not channels.fits(name, self._entries[name].shape):
                raise RecipeError(f"{name}: its kept channels do not fit its shape {self._entries[name].shape}")

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Plan({len(self)} tensors, {sum(e.values().numel() for e in self.values())} numbers)"

    @property
    def relative(self) -> bool:
        """Whether any entry is a difference to another network's tensor."""
        return any(entry.base is not None for entry in self._entries.values())

    def whole(self) -> Plan:
        """The same numbers without differences: these become :class:`Dense` entries, as which they stand alone."""
        alone = {n: Dense(e.values()) if e.base is not None else e for n, e in self._entries.items()}
        return Plan(alone, self.channels, self.aliases, self.approximations) if self.relative else self

    def updated(self, entries: Mapping[str, Entry]) -> Plan:
        """A new plan in which ``entries`` replace or join the present ones."""
        return Plan({**self._entries, **entries}, self.channels, self.aliases, self.approximations)

    def swapped(self, approximations: Mapping[str, Approximation]) -> Plan:
        """A new plan of a network that computes these in place of its operations."""
        return Plan(self._entries, self.channels, self.aliases, approximations)

    def named(self, name: str) -> Entry | None:
        """The entry of a tensor by any of its names."""
        return self._entries.get(self.aliases.get(name, name))

    @property
    def clustered(self) -> dict[str, Clustered]:
        """The clustered entries, in order."""
        return {name: e for name, e in self._entries.items() if isinstance(e, Clustered)}

    @property
    def compressed(self) -> dict[str, Compressed]:
        """The clustered, the masked and the affine entries, in order."""
        return {name: e for name, e in self._entries.items() if not isinstance(e, Dense)}

    @property
    def affine(self) -> dict[str, Affine]:
        """The affine entries, in order."""
        return {name: e for name, e in self._entries.items() if isinstance(e, Affine)}

    def tensors(self) -> dict[str, Tensor]:
        """``{name: tensor}`` as the network computes with it: a state dict, under every name."""
        found = {name: entry.values() for name, entry in self._entries.items()}
        return found | {other: found[name] for other, name in self.aliases.items()}

    def digest(self) -> bytes:
        """SHA-256 of names, kinds, shapes and numbers: the same for plans that are equal, other masks included."""
        found = hashlib.sha256(repr(sorted(self.aliases.items())).encode())
        if self.approximations:
            found.update(repr(sorted(self.approximations.items())).encode())
        for name, entry in self._entries.items():
            entry = _plainest(entry)
            numbers = [entry.values(), *([entry.mask] if isinstance(entry, Masked) else [])]
            if isinstance(entry, Affine):
                numbers.append(entry.levels)
            found.update(repr((name, type(entry).__name__, [(n.dtype, tuple(n.shape)) for n in numbers])).encode())
            for tensor in numbers:
                found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.digest()

    def equals(self, other: Plan) -> bool:
        """Whether both plans have the same names, kinds and exactly the same numbers."""
        if list(self) != list(other) or self.aliases != other.aliases:
            return False
        if self.approximations != other.approximations:
            return False
        if (self.channels is None) != (other.channels is None):
            return False
        if self.channels is not None and not self.channels.equals(other.channels):
            return False
        for name, mine in self._entries.items():
            mine, theirs = _plainest(mine), _plainest(other[name])
            if type(mine) is not type(theirs) or mine.shape != theirs.shape:
                return False
            a, b = mine.values(), theirs.values()
            if a.dtype != b.dtype or not torch.equal(a.cpu(), b.cpu()):
                return False
            if isinstance(mine, Masked) and not torch.equal(mine.mask.cpu(), theirs.kept.cpu()):  # type: ignore[union-attr]
                return False
            if isinstance(mine, Affine) and not torch.equal(mine.levels.cpu(), theirs.levels.cpu()):  # type: ignore[union-attr]
                return False
        return True
