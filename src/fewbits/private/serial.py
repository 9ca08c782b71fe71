"""SEAL's objects as bytes and back. SEAL saves to paths only: here, to files that live in memory.

A few compressed bytes may be many. So they are decompressed here, up to the size that such an object has, and SEAL is
handed the plain form.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import Any, TypeVar

import zstandard

from fewbits.errors import DamagedError

_HEAD = struct.Struct("<HBBBBHQ")  # magic, size of the head, version (2), compression, zero, size of all
_MAGIC, _MAJOR = 0xA15E, 4
_PLAIN, _ZSTD = 0, 2
SEAL_ERRORS = (RuntimeError, ValueError, IndexError, OverflowError, MemoryError, TypeError)
"""What SEAL's bindings raise at bytes that they do not like."""
T = TypeVar("T")


def to_bytes(thing: Any) -> bytes:
    """A key, ciphertext or seeded object of SEAL, compressed as SEAL does."""
    with _path() as path:
        thing.save(path)
        with open(path, "rb") as file:
            return file.read()


def from_bytes(cls: type[T], context: Any, data: bytes | memoryview, limit: int, what: str) -> T:
    """An object of SEAL of class ``cls``, valid for ``context``.

    Args:
        limit: bytes that it has at most when it is not compressed.
        what: it is called in errors.

    Raises:
        DamagedError: these bytes are no such object.
    """
    plain = _plain(memoryview(data), limit, what)
    thing = cls()
    with _path() as path:
        with open(path, "wb") as file:
            file.write(plain)
        try:
            thing.load(context, path)  # type: ignore[attr-defined]
        except SEAL_ERRORS as error:
            raise DamagedError(f"{what} cannot be read as {cls.__name__}: {error}") from None
    return thing


def _plain(view: memoryview, limit: int, what: str) -> bytes:
    if len(view) < _HEAD.size:
        raise DamagedError(f"{what} is empty or cut off")
    magic, head, major, minor, compression, zero, size = _HEAD.unpack_from(view)
    if magic != _MAGIC or head != _HEAD.size or major != _MAJOR or zero:
        raise DamagedError(f"{what} was not written by SEAL {_MAJOR}")
    if size != len(view) or compression not in (_PLAIN, _ZSTD):
        raise DamagedError(f"{what} has another size than it says, or another compression")
    body: Any = view[_HEAD.size :]
    if compression == _ZSTD:
        try:
            body = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(limit + 1)
        except (zstandard.ZstdError, MemoryError) as error:
            raise DamagedError(f"{what} cannot be decompressed: {error}") from None
    if len(body) > limit:
        raise DamagedError(f"{what} is larger than the {limit:,} bytes that it may have")
    return _HEAD.pack(magic, head, major, minor, _PLAIN, 0, _HEAD.size + len(body)) + bytes(body)


@contextlib.contextmanager
def _path() -> Iterator[str]:
    """A path that no other user can open, in memory where the system can do so."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        handle = os.memfd_create("fewbits", os.MFD_CLOEXEC)
        try:
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    with tempfile.TemporaryDirectory(prefix="fewbits-") as folder:  # which has mode 0700
        yield os.path.join(folder, "object")
