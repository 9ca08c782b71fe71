"""Where a file comes from: bytes or a path, one network of several in a file, with the base that it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewbits import codec, files
from fewbits.codec import Base, FamilyReader
from fewbits.errors import FileError, MismatchError
from fewbits.pipeline._hub import SCHEME, fetched
from fewbits.weights import places

Place = str | os.PathLike[str] | bytes
"""A path, ``hf://owner/name``, or the bytes of a file."""

FREE = 1 << 18
"""Numbers that a base may have however small the network is that is loaded."""
BEGIN = 32
"""Bytes that tell a file of several networks."""


class Opened(NamedTuple):
    """The bytes of a file of one network, and what its differences are to, if it holds any."""

    data: bytes
    base: Base | None


def opened(
    source: Place, base: Place | Base | None = None, member: str | None = None, like: nn.Module | None = None
) -> Opened:
    """A file as the codec takes it. Of a file of several networks only what is asked for is read.

    Args:
        base: what its differences are to, if it is not in the same file; of several networks the one that stands alone.
        member: which network of several; default: the only one beside its base.
        like: the network that it is for: its base may hold about as many numbers.

    Raises:
        FileError: missing, damaged or hostile file; of several networks none (MismatchError). RecipeError: no such
            member.
    """
    place = _here(source)
    limit = None if like is None else 2 * sum(tensor.numel() for tensor in like.state_dict().values()) + FREE
    given = None if base is None else based(base, limit)
    if member is None and not codec.is_family(_begin(place)):
        return Opened(place if isinstance(place, bytes) else files.read(place), given)
    with FamilyReader(place) as reader:
        name = reader.only() if member is None else member
        data, inside = reader.member(name), reader.bases[name]
        if given is None and inside is not None:
            given = codec.base_of(reader.member(inside), limit=limit)
    return Opened(data, given)


def based(base: Place | Base, limit: int | None = None) -> Base:
    """A file as the base of others.

    Args:
        limit: numbers that it may declare; default: as of :func:`fewbits.codec.base_of`.

    Raises:
        FileError: as of :func:`opened`; it holds differences itself (BaseError).
    """
    if isinstance(base, Base):
        return base
    place = _here(base)
    if not codec.is_family(_begin(place)):
        return codec.base_of(place if isinstance(place, bytes) else files.read(place), limit=limit)
    with FamilyReader(place) as reader:
        return codec.base_of(reader.member(reader.alone()), limit=limit)


def bases_of(base: Base, model: nn.Module) -> dict[str, Tensor]:
    """The base's tensors that a network's can be differences to: float32, of the same name and shape.

    Raises:
        MismatchError: there are none.
    """
    found = {}
    for name, own in places(model).items():
        tensor, mine = base.tensors.get(name), own[0].stored
        if tensor is not None and tensor.shape == mine.shape and tensor.dtype == mine.dtype == torch.float32:
            found[name] = tensor
    if not found:
        ours, theirs = next(iter(places(model)), "none"), next(iter(base.tensors), "none")
        raise MismatchError(
            f"the base has no tensor of the network's: it begins with {theirs!r}, {type(model).__name__} with "
            f"{ours!r}; give the file of a network with the same names and shapes"
        )
    return found


def _here(source: Place) -> Path | bytes:
    """On this machine."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and source.startswith(SCHEME):
        return fetched(source)
    if not isinstance(source, str | os.PathLike):
        raise FileError(f"cannot read a file of type {type(source).__name__}: give its path")
    return Path(source)


def _begin(place: Path | bytes) -> bytes:
    """The first bytes of a file; none of one that cannot be read, which is said where it is read as a whole."""
    if isinstance(place, bytes):
        return place[:BEGIN]
    try:
        with place.open("rb") as handle:
            return handle.read(BEGIN)
    except (OSError, ValueError):
        return b""
