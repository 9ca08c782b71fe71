"""Names and shapes that a file declares itself."""

from __future__ import annotations

import torch
from torch import Tensor

from fewbits.codec._container import open_file
from fewbits.codec._difference import Base
from fewbits.codec._limits import excess, numbers_of
from fewbits.errors import FormatError


def shapes(data: bytes, *, limit: int | None = None, base: Base | None = None) -> dict[str, Tensor]:
    """Tensors without memory: a ``like`` to decode files of unknown networks into.

    Args:
        limit: numbers that the file may declare; default: 2^18, and 256 for each of its bytes.
        base: of a file of differences, which may declare as many numbers more as the base has.

    Raises:
        FormatError: the file is not sound, or declares more than ``limit`` numbers. BaseError: as of :func:`decode`.
    """
    contents = open_file(data, base)
    if why := excess(contents, len(data), limit, whole=True, free=numbers_of(base)):
        raise FormatError(why)
    found = {record.name: torch.empty(record.shape, device="meta") for record in contents.records}
    return found | {other: found[name] for other, name in contents.aliases.items()}
