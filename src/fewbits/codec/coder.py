"""The coders of integer levels behind one seam, and the two profiles that choose among them.

Every section of a file names its coder by number, so that a new one can join without a new container. The bit
coding itself is the C extension where it was built, else the plain-Python reference. Where ``FEWBITS_REQUIRE_C`` is
set, as in continuous integration, a missing extension is an error instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbits.codec._cursor import Cursor, varint
from fewbits.errors import FormatError, MissingCoderError, RecipeError, did_you_mean

Array = NDArray[Any]

STRIP = 1 << 20
"""Weights of a strip at most (or one row): strips are coded independently, so that threads can share a tensor."""


_ENDINGS = ("_encode", "_decode", "_chances")


def _load() -> tuple[Any, str]:
    try:
        from fewbits.codec import _coder
    except ImportError as error:
        if os.environ.get("FEWBITS_REQUIRE_C", "0") not in ("", "0"):
            raise MissingCoderError(
                f"FEWBITS_REQUIRE_C is set, but the compiled coder cannot be used ({error}): build it with a C compiler"
                " (make install, or pip install of the source), or unset FEWBITS_REQUIRE_C for the slow one in Python"
            ) from error
        from fewbits.codec import _reference as reference
        from fewbits.codec import _reference_fast as reference_fast
        from fewbits.codec import _reference_small as reference_small

        every = vars(reference) | vars(reference_small) | vars(reference_fast)
        return SimpleNamespace(**{name: f for name, f in every.items() if name.endswith(_ENDINGS)}), "python"
    return _coder, "c"


bits, _BACKEND = _load()


def backend() -> str:
    """``"c"`` with the compiled coder, ``"python"`` with the slow one; both write the same bytes."""
    return _BACKEND


def layout(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``(rows, columns, kernel)`` of a non-empty weight: a row per filter, ``kernel`` numbers per channel."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, prod(shape) // rows, prod(shape[2:])


def joined(streams: Sequence[bytes]) -> bytes:
    """A section from its strips: the sizes of all but the last, then the strips."""
    return b"".join([*(varint(len(stream)) for stream in streams[:-1]), *streams])


def _streams(data: bytes, count: int) -> list[bytes]:
    """The inverse of :func:`joined`; FormatError where the sizes are not those of so many strips."""
    cursor = Cursor(data)
    try:
        sizes = [cursor.varint(len(data)) for _ in range(count - 1)]
        streams = [cursor.take(size) for size in sizes]
    except FormatError:
        raise FormatError("the file holds coded levels whose strips do not fit in their section") from None
    return [*streams, cursor.take(cursor.left)]


@dataclass(frozen=True)
class Coder:
    """A coder of integer levels.

    Work is handed out as jobs without arguments, which may run in any order and in threads.

    Attributes:
        number: how a file names it. name: how people do.
        kind: prefix of its two functions in ``bits``.
        cut: whether large tensors are cut into strips of rows.
    """

    number: int
    name: str
    kind: str
    cut: bool = True

    def encoding(self, levels: Array, lowest: int, highest: int) -> list[Callable[[], bytes]]:
        """Jobs whose results :func:`joined` makes into the section of a non-empty int16 array.

        All levels lie in ``[lowest, highest]``, and ``lowest <= 0 <= highest``.
        """
        rows, columns, kernel = layout(levels.shape)
        matrix = np.ascontiguousarray(levels, dtype=np.int16).reshape(rows, columns)
        code = getattr(bits, f"{self.kind}_encode")

        def job(first: int, last: int) -> Callable[[], bytes]:
            part = matrix[first:last]
            return lambda: code(part.reshape(-1).data, last - first, columns, kernel, lowest, highest)

        return [job(first, last) for first, last in self._cuts(rows, columns)]

    def decoding(
        self, data: bytes, shape: tuple[int, ...], lowest: int, highest: int
    ) -> tuple[Array, list[Callable[[], None]]]:
        """The array that will hold the levels, and the jobs that fill it; FormatError for an invalid stream."""
        rows, columns, kernel = layout(shape)
        levels = np.zeros((rows, columns), np.int16)
        cuts = self._cuts(rows, columns)
        jobs: list[Callable[[], None]] = [
            partial(self._fill, stream, levels[first:last], kernel, lowest, highest)
            for stream, (first, last) in zip(_streams(data, len(cuts)), cuts, strict=True)
        ]
        return levels.reshape(shape), jobs

    def strips(self, data: bytes, shape: tuple[int, ...], lowest: int, highest: int) -> Iterator[Array]:
        """The same levels strip by strip, in this thread, without an array for all of them."""
        rows, columns, kernel = layout(shape)
        cuts = self._cuts(rows, columns)
        for stream, (first, last) in zip(_streams(data, len(cuts)), cuts, strict=True):
            part = np.zeros((last - first, columns), np.int16)
            self._fill(stream, part, kernel, lowest, highest)
            yield part

    def _fill(self, stream: bytes, part: Array, kernel: int, lowest: int, highest: int) -> None:
        """Levels of a strip into an array [rows, columns]."""
        try:
            getattr(bits, f"{self.kind}_decode")(stream, part.reshape(-1).data, *part.shape, kernel, lowest, highest)
        except ValueError as error:
            raise FormatError(f"the file holds {error}") from None

    def encode(self, levels: Array, lowest: int, highest: int) -> bytes:
        """The section, in this thread."""
        return joined([job() for job in self.encoding(levels, lowest, highest)])

    def decode(self, data: bytes, shape: tuple[int, ...], lowest: int, highest: int) -> Array:
        """The levels, in this thread."""
        levels, jobs = self.decoding(data, shape, lowest, highest)
        for job in jobs:
            job()
        return levels

    def height(self, rows: int, columns: int) -> int:
        """Rows of a strip at most."""
        return min(rows, max(1, STRIP // columns)) if self.cut else rows

    def _cuts(self, rows: int, columns: int) -> list[tuple[int, int]]:
        height = self.height(rows, columns)
        return [(first, min(rows, first + height)) for first in range(0, rows, height)]


def chances_of(levels: Array) -> Array:
    """What the mixing coder expects: for each level the probability, uint16 of 65536, that it is not zero.

    Given the levels before it, for a non-empty int16 array of a weight's shape; flat.
    """
    flat = np.ascontiguousarray(levels, dtype=np.int16).reshape(-1)
    chances = np.empty(flat.size, np.uint16)
    bits.levels_chances(flat.data, chances.data, *layout(levels.shape))
    return chances


MIXING = Coder(1, "mixing", "levels", cut=False)
SMALL = Coder(3, "small", "small")
PLAIN = Coder(4, "plain", "plain")
FAST = Coder(5, "fast", "fast")
CODERS = {coder.number: coder for coder in (MIXING, SMALL, PLAIN, FAST)}
"""All that a file may name. Files of before coder 5 use :data:`PLAIN`, which no profile takes any more."""
PROFILES = {"small": (SMALL, MIXING, 1 << 16), "fast": (FAST, SMALL, 1 << 10)}
"""What an encoder takes: a coder, another that is tried as well on small tensors, and weights of those at most."""


def encoding(levels: Array, lowest: int, highest: int, profile: str) -> list[Callable[[], tuple[int, bytes]]]:
    """Jobs that give the number of a coder and a strip of the section, for a non-empty int16 array.

    All strips of a section come from one coder: tensors on which several are tried have a single strip.

    Raises:
        RecipeError: there is no such profile.
    """
    if profile not in PROFILES:
        raise RecipeError(
            f"no coding profile named {profile!r}{did_you_mean(profile, PROFILES)} ({', '.join(PROFILES)})"
        )
    first, second, most = PROFILES[profile]
    if levels.size <= most:
        return [partial(_shorter, (first, second), levels, lowest, highest)]
    return [partial(_numbered, first.number, job) for job in first.encoding(levels, lowest, highest)]


def _shorter(tried: tuple[Coder, Coder], levels: Array, lowest: int, highest: int) -> tuple[int, bytes]:
    found = [(coder.number, coder.encode(levels, lowest, highest)) for coder in tried]
    return min(found, key=lambda one: len(one[1]))


def _numbered(number: int, job: Callable[[], bytes]) -> tuple[int, bytes]:
    return number, job()
