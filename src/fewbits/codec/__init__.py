"""Bytes: a plan as a ``.few`` file and back.

The format is defined in ``docs/format.md``. Nothing here unpickles, and a damaged or hostile file raises a
:class:`~fewbits.errors.FileError` and nothing else.
"""

from fewbits.codec.coder import backend
from fewbits.codec.container import decode, encode
from fewbits.codec.summary import LIMIT, Decoded, Summary, TensorSummary, inspect, measure, shapes

__all__ = [
    "LIMIT",
    "Decoded",
    "Summary",
    "TensorSummary",
    "backend",
    "decode",
    "encode",
    "inspect",
    "measure",
    "shapes",
]
