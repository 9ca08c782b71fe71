"""A file that is read piece by piece, and how much of it was."""

from __future__ import annotations

import io
import os
from types import TracebackType
from typing import Self

from fewbits.errors import FileError


class Pieces:
    """An open file; the bytes of one, if it was read already.

    Attributes:
        size: bytes of the file. bytes_read: so far.

    Raises:
        FileError: it cannot be read.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self.bytes_read = 0
        try:
            self._handle = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0)  # noqa: SIM115
            self.size = self._handle.seek(0, os.SEEK_END)
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or error
            raise FileError(f"cannot read {os.fspath(source)!r}: {words}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is read."""
        self._handle.close()

    def take(self, begin: int, end: int) -> bytes:
        """These bytes, or as many of them as there are."""
        self._handle.seek(begin)
        parts = []
        while begin < end and (part := self._handle.read(end - begin)):
            parts.append(part)
            begin += len(part)
        found = b"".join(parts)
        self.bytes_read += len(found)
        return found
