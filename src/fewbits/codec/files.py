"""Reading a file whole, and replacing one so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from fewbits.errors import FileError


def read(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file; FileError where it is missing, a directory, or may not be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {os.fspath(path)!r}: {_reason(error)}") from error


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Put ``data`` at ``path``, wholly or not at all.

    The bytes go to a temporary file beside the target, to the disk, and only then to their name. On any
    failure (disk full, interruption) the temporary file is removed and an older file at ``path`` stays as it
    was. A symbolic link is followed.

    Raises:
        FileError: the file cannot be written; the message says why.
    """
    target = None
    try:
        target = os.path.realpath(path)
        folder = os.path.dirname(target)
        beside = os.path.join(folder, f".fewbits-{secrets.token_hex(8)}.tmp")
        try:
            _store(beside, data)
            os.replace(beside, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        _settle(folder)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write {os.fspath(path)!r}: {_reason(error)}") from error


def _store(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _settle(folder: str) -> None:
    """Make the new name itself durable. Not every system can; the file is whole either way."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
