"""Networks in one file: which there are, how one is put there, and one of them as a file of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fewbits import codec, files
from fewbits.codec import FamilyReader
from fewbits.multitask._file import Source


@dataclass(frozen=True)
class MemberInFile:
    """A network of a file of several.

    Attributes:
        base: which other one it is a difference to, or ``None``. bytes: of its own file. read: bytes that are read to
            have it, its base's among them.
    """

    name: str
    base: str | None
    bytes: int
    read: int


@dataclass(frozen=True)
class ExtractedMember:
    """A network that was written alone.

    Attributes:
        bytes: of the new file. read: bytes of the file it is from. size: of that file.
        base: the base that came along, or ``None``.
    """

    bytes: int
    read: int
    size: int
    base: str | None


def family(members: Mapping[str, Source], path: str | os.PathLike[str]) -> int:
    """Write several ``.few`` files as one, of which each is read alone; returns its bytes.

    ::

        fb.family({"base": "base.few", "cars": "cars.few", "birds": birds.data}, "family.few")
        net = fb.load("family.few", like=Net(), member="cars")

    Args:
        members: files by name: paths or bytes. Differences find their base among them, or need it from elsewhere.

    Raises:
        RecipeError: no members, or a name with other characters than letters, digits, ``_`` and ``-``. FileError: a
            member that cannot be read, is not sound, or is itself of several networks.
    """
    found = {n: source if isinstance(source, bytes) else files.read(source) for n, source in members.items()}
    data = codec.family(found)
    files.write(path, data)
    return len(data)


def is_family(source: Source) -> bool:
    """Whether a file begins as one of several networks does; sound it need not be."""
    if isinstance(source, bytes):
        return codec.is_family(source)
    try:
        with Path(source).open("rb") as handle:
            return codec.is_family(handle.read(32))
    except (OSError, ValueError):  # said where it is read
        return False


def members_in(source: Source) -> list[MemberInFile]:
    """The networks of a file of several, in order. Only its directory is read.

    Raises:
        FileError: missing, damaged or hostile file (FormatError), or a file of one network (MismatchError).
    """
    with FamilyReader(source) as reader:
        begin, found = reader.bytes_read, []
        for name, size in reader.sizes.items():
            base = reader.bases[name]
            read = begin + reader.cost(name) + (0 if base is None else reader.cost(base))
            found.append(MemberInFile(name, base, size, read))
    return found


def extract_member(
    source: Source, name: str, path: str | os.PathLike[str], *, with_base: bool = True
) -> ExtractedMember:
    """Write one network of several as a file that stands alone. No other one is read.

    Args:
        with_base: of a difference to another one in the file, that one comes along. Without it the new file holds
            differences, and is read with a base.

    Raises:
        FileError: as of :func:`members_in`; the network is damaged. RecipeError: no such network.
    """
    with FamilyReader(source) as reader:
        data, base = reader.member(name), reader.bases[name] if with_base else None
        if base is not None:
            data = codec.family({base: reader.member(base), name: data})
            codec.inspect(*_apart(data, base, name))  # against its base, before anything is written
        else:
            codec.inspect(data)
        files.write(path, data)
        return ExtractedMember(len(data), reader.bytes_read, reader.size, base)


def _apart(data: bytes, base: str, name: str) -> tuple[bytes, codec.Base]:
    with FamilyReader(data) as reader:
        return reader.member(name), codec.base_of(reader.member(base))
