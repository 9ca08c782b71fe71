"""Builds ``.few`` files with sound checksums around any content: what an attacker would do."""

import hashlib
import random
import struct
import zlib
from collections.abc import Iterable, Sequence

from fewbits.codec._container import MAGIC
from fewbits.codec._cursor import varint

DIGEST, CHECK = 16, 2
START = len(MAGIC) + 6


def check(block: bytes) -> bytes:
    return struct.pack("<H", zlib.crc32(block) & 0xFFFF)


def seal(head: bytes, chunks: Iterable[bytes] = (), version: int = 1, magic: bytes = MAGIC) -> bytes:
    """A file with this stored head and these sections, all checksums right."""
    body = magic + struct.pack("<HI", version, len(head))
    for block in (head, *chunks):
        body += block + check(block)
    return body + hashlib.sha256(body).digest()[:DIGEST]


def take_apart(data: bytes, sizes: Sequence[int]) -> tuple[bytes, list[bytes]]:
    """Stored head and sections (of these sizes) of a sound file."""
    (head_size,) = struct.unpack_from("<I", data, START - 4)
    at = START + head_size + CHECK
    chunks = []
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size + CHECK
    return data[START : START + head_size], chunks


def raw_head(
    names: Sequence[bytes] = (b"w",),
    kinds: bytes = b"\x00",
    shapes: Sequence[Sequence[int]] = ((2, 3),),
    widths: bytes = b"\x04",
    values: bytes = struct.pack("<f", 0.5),
    constants: bytes = b"",
    coders: bytes = b"\x01",
    sizes: Sequence[int] = (1,),
    user: bytes = b"",
    count: int | None = None,
) -> bytes:
    """A head in its raw form, column by column; every argument may lie."""
    return b"".join(
        [
            b"\0",
            varint(len(names) if count is None else count),
            *(name + b"\0" for name in names),
            kinds,
            bytes(len(shape) for shape in shapes),
            *(varint(size) for shape in shapes for size in shape),
            widths,
            values,
            constants,
            coders,
            *(varint(size) for size in sizes),
            user,
        ]
    )


def mutate(block: bytes, chance: random.Random) -> bytes:
    """One to four edits: a flipped bit, a new byte, a cut, an insertion, a repeated run."""
    out = bytearray(block)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(out):
                out[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            case 2:
                del out[at : at + chance.randint(1, 8)]
            case 3:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case 4:
                out[at:at] = out[max(0, at - 16) : at]
    return bytes(out)
