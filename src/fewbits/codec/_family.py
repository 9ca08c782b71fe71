"""Several networks in one file: whole files behind each other, each read alone, and a base that others need."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterable, Mapping

from fewbits.codec._container import CHECK, DIGEST, MAGIC, VERSION, check_of, checked_chunk, stored_head
from fewbits.codec._cursor import Cursor, varint
from fewbits.codec._difference import IDENTITY, preface
from fewbits.codec._directory import COUNT_LIMIT, TENSOR_LIMIT, text_of
from fewbits.codec._pieces import Pieces
from fewbits.codec._record import FAMILY_FORM
from fewbits.codec._summary import inspect
from fewbits.errors import FormatError, MismatchError, RecipeError, did_you_mean

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


def family(members: Mapping[str, bytes]) -> bytes:
    """The bytes of a file of several networks.

    Args:
        members: whole ``.few`` files by name. The base of differences may be among them, or be nowhere.

    Raises:
        RecipeError: no members, or a name with other characters than letters, digits, ``_`` and ``-``. FormatError: a
            member that is not sound. MismatchError: one that is itself of several networks.
    """
    if not members:
        raise RecipeError("a family has at least one member")
    for name, data in members.items():
        if NAME.fullmatch(name) is None:
            raise RecipeError(f"member {name!r}: a name has letters, digits, _ and - only, at most 100")
        inspect(data)
    order = list(members)
    identities = {data[-IDENTITY:]: number for number, data in enumerate(members.values())}
    needed = [_needs(data) for data in members.values()]
    bases = [0 if identity is None else identities.get(identity, -1) + 1 for identity in needed]
    for name, base in zip(order, bases, strict=True):
        if base and needed[base - 1] is not None:
            raise MismatchError(f"{name} holds differences to {order[base - 1]}, which holds differences itself")
    head = b"".join(
        [
            bytes([FAMILY_FORM]),
            varint(len(order)),
            *(name.encode() + b"\0" for name in order),
            *map(varint, bases),
            *(varint(len(data)) for data in members.values()),
        ]
    )
    blocks = [MAGIC, struct.pack("<HI", VERSION, len(head))]
    for block in (head, *members.values()):
        blocks += [block, check_of(block)]
    body = b"".join(blocks)
    return body + hashlib.sha256(body).digest()[:DIGEST]


def _needs(data: bytes) -> bytes | None:
    """The identity of the base that a file needs, or ``None``."""
    found = preface(stored_head(lambda begin, end: data[begin:end], len(data))[0])
    return None if found is None else found.identity


class FamilyReader(Pieces):
    """A file of several networks, of which each can be had without reading the others.

    What is read is checked as ever: a member is a whole file with a hash of its own.

    Args:
        source: a path, or the bytes of a file.

    Attributes:
        names: of the members, in order. bases: by name, which member the differences of one are to; ``None`` for one
            that stands alone, or whose base is not in the file. sizes: bytes by name.
        size: bytes of the file. bytes_read: so far.

    Raises:
        FileError: missing, damaged or hostile file (FormatError), or one of a single network (MismatchError).
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        super().__init__(source)
        try:
            head, at = stored_head(self.take, self.size)
            if head[:1] != bytes([FAMILY_FORM]):
                raise MismatchError("the file holds one network, not several: read it without a member's name")
            self.names, bases, sizes = _directory(head)
            needed = at + sum(size + CHECK for size in sizes) + DIGEST
            if needed != self.size:
                raise FormatError(f"the file should have {needed} bytes, and has {self.size}")
        except BaseException:
            self.close()
            raise
        self.sizes = dict(zip(self.names, sizes, strict=True))
        self.bases = {n: self.names[i - 1] if i else None for n, i in zip(self.names, bases, strict=True)}
        self._places: dict[str, int] = {}
        for name, size in self.sizes.items():
            self._places[name] = at
            at += size + CHECK

    def member(self, name: str) -> bytes:
        """The file of one network, as it was before.

        Raises:
            RecipeError: there is none of this name. FormatError: it is damaged.
        """
        if name not in self._places:
            raise RecipeError(
                f"the file has no network {name!r}{did_you_mean(name, self.names)} ({_listed(self.names)})"
            )
        at = self._places[name]
        block = self.take(at, at + self.sizes[name] + CHECK)
        return checked_chunk(block, name)

    def cost(self, name: str) -> int:
        """Bytes that :meth:`member` reads."""
        return self.sizes[name] + CHECK

    def only(self) -> str:
        """The one member that is meant where none is named: the only one, or the only one beside its base.

        Raises:
            MismatchError: there are several.
        """
        others = [name for name in self.names if name not in set(self.bases.values())]
        if len(others) == 1:
            return others[0]
        raise MismatchError(several(self.names))

    def alone(self) -> str:
        """The member that others can be differences to: the only one that stands alone.

        Raises:
            MismatchError: there are several, or none.
        """
        named = [base for base in self.bases.values() if base is not None]
        found = sorted(set(named)) or [name for name in self.names if _needs(self.member(name)) is None]
        if len(found) == 1:
            return found[0]
        raise MismatchError(f"the file has {len(found)} networks that could be a base: give one, as a file of its own")


def is_family(data: bytes) -> bool:
    """Whether these bytes begin as a file of several networks does; sound it need not be."""
    at = len(MAGIC) + 6
    return data[: len(MAGIC)] == MAGIC and data[at : at + 1] == bytes([FAMILY_FORM])


def several(names: Iterable[str]) -> str:
    """What is said of such a file where one network is asked for."""
    return f"the file holds several networks: name one of them, as member= (--member): {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")


def _directory(head: bytes) -> tuple[tuple[str, ...], list[int], list[int]]:
    """Names, bases and sizes of the members."""
    cursor = Cursor(head)
    cursor.take(1)
    count = cursor.varint(TENSOR_LIMIT)
    names = tuple(text_of(cursor.until_zero(100)) for _ in range(count))
    if not names or len(set(names)) < count or any(NAME.fullmatch(name) is None for name in names):
        raise FormatError("the file holds networks without a name, or two of the same name")
    bases = [cursor.varint(count) for _ in names]
    if any(base and (bases[base - 1] or base - 1 == i) for i, base in enumerate(bases)):
        raise FormatError("the file holds differences to differences")
    sizes = [cursor.varint(COUNT_LIMIT) for _ in names]
    if cursor.left:
        raise FormatError("the directory of the file has bytes left over")
    return names, bases, sizes
