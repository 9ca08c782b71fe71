"""Reading and writing the fields of a directory, never past the end."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import isfinite

from fewbits.errors import FormatError


def varint(value: int) -> bytes:
    """A non-negative number, 7 bits per byte, lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """A position in bytes; every read that would pass the end is a FormatError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > self.left:
            raise FormatError("the directory of the file ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def until_zero(self, limit: int) -> bytes:
        """The bytes before the next zero byte, at most ``limit``; the zero is consumed."""
        end = self._data.find(0, self._at, self._at + limit + 1)
        if end < 0:
            raise FormatError("the directory of the file has a name without an end")
        return self.take(end + 1 - self._at)[:-1]

    def varint(self, limit: int) -> int:
        """A number of at most ``limit``, in its shortest form."""
        if self._at < len(self._data) and self._data[self._at] < 128:  # most are this short, and a head has many
            value = self._data[self._at]
            if value > limit:
                raise FormatError("the directory of the file has a number out of range")
            self._at += 1
            return value
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if value > limit or shift > 70 or (byte == 0 and shift > 7):
                raise FormatError("the directory of the file has a number out of range")
            if byte < 128:
                return value

    def varints(self, count: int, limit: int) -> Sequence[int]:
        """So many of them."""
        ahead = self._data[self._at : self._at + count]
        if len(ahead) == count and ahead.isascii() and limit > 127:
            self._at += count
            return ahead
        return [self.varint(limit) for _ in range(count)]

    def float32(self) -> float:
        """A finite float32."""
        (value,) = struct.unpack("<f", self.take(4))
        if not isfinite(value):
            raise FormatError("the directory of the file has a number that is not finite")
        return float(value)
