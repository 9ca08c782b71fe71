"""A file of which only parts are read: the directory, and the sections that hold some of its tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from fewbits.codec._container import CHECK, Contents, checked_chunk, decoded_entries, open_directory
from fewbits.codec._limits import excess
from fewbits.codec._pieces import Pieces
from fewbits.codec._record import Record, Section
from fewbits.errors import FormatError, MismatchError, UnsupportedError, did_you_mean
from fewbits.plan import Plan


class PartReader(Pieces):
    """A ``.few`` file, of which each tensor can be had without reading those in other sections.

    What is read is checked as ever, but for the hash of the whole file: a section has its own check of 16 bits.
    Numbers that tensors of one type share a section for are read together.

    Args:
        source: a path, or the bytes of a file.
        limit: numbers that may be decoded at once; default: 2^18, and 256 for each byte of the file.

    Attributes:
        names: of all tensors, with the other names that some have. size: bytes of the file.
        bytes_read: so far. numbers_decoded: so far, with those that shared a section with what was asked for.

    Raises:
        FileError: missing, damaged or hostile file.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, *, limit: int | None = None) -> None:
        self.limit, self.numbers_decoded = limit, 0
        super().__init__(source)
        try:
            self._directory, at = open_directory(self.take, self.size)
        except BaseException:
            self.close()
            raise
        self._places = []
        for section in self._directory.sections:
            self._places.append(at)
            at += section.size + CHECK
        self._first = {record.name: i for i, record in enumerate(self._directory.records)}
        aliases = self._directory.aliases
        self._by_name = self._first | {other: self._first[name] for other, name in aliases.items()}
        self.names = tuple(self._by_name)

    def plan(self, names: Iterable[str]) -> Plan:
        """The tensors of these names, in the order of the file.

        Raises:
            MismatchError: a name that is not there. FormatError: a damaged section, or more numbers than ``limit``.
            UnsupportedError: a file of a network that lost channels.
        """
        asked = self._asked(names)
        records = self._directory.records
        if self._directory.paddings or any(record.kept is not None for record in records):
            raise UnsupportedError("the network in the file lost channels, and cannot be read in parts: load it whole")
        taken = self._sections(asked)
        if why := self._excess(asked, taken):
            raise FormatError(why)
        chunks = []
        for section, at in taken:
            block = self.take(at, at + section.size + CHECK)
            chunks.append((section, checked_chunk(block, records[section.members[0]].name)))
            members = [records[i] for i in section.members]
            self.numbers_decoded += sum(record.count if section.levels else record.numbers for record in members)
        found = decoded_entries(records, sorted(asked), chunks)
        entries = {asked[i][0]: entry for i, entry in found.items()}
        known = {other: own[0] for own in asked.values() for other in own[1:]}
        return Plan(entries, aliases=known, approximations=self._directory.approximations)

    def count(self, names: Iterable[str]) -> int:
        """Numbers of these tensors, each once."""
        return sum(self._directory.records[i].count for i in self._asked(names))

    def cost(self, names: Iterable[str]) -> int:
        """Bytes that :meth:`plan` reads for these names."""
        return sum(section.size + CHECK for section, _ in self._sections(self._asked(names)))

    def _asked(self, names: Iterable[str]) -> dict[int, list[str]]:
        """Which records, and by which names."""
        found: dict[int, list[str]] = {}
        for name in names:
            if name not in self._by_name:
                raise MismatchError(f"the file has no tensor {name!r}{did_you_mean(name, self._by_name)}")
            found.setdefault(self._by_name[name], []).append(name)
        return found

    def _sections(self, asked: Iterable[int]) -> list[tuple[Section, int]]:
        """What holds these records, and where it begins."""
        wanted, sections = set(asked), self._directory.sections
        return [pair for pair in zip(sections, self._places, strict=True) if not wanted.isdisjoint(pair[0].members)]

    def _excess(self, asked: Iterable[int], taken: list[tuple[Section, int]]) -> str | None:
        """Why these records are not decoded, as if they were all of the file."""
        members = sorted({*asked, *(i for section, _ in taken for i in section.members)})
        place = {i: number for number, i in enumerate(members)}
        records: list[Record] = [self._directory.records[i] for i in members]
        sections = [replace(section, members=tuple(place[i] for i in section.members)) for section, _ in taken]
        return excess(Contents({}, records, sections, [], {}, {}, {}), self.size, self.limit, whole=True)
