"""Bytes: a plan as a ``.few`` file and back.

The format is defined in ``docs/format.md``. Nothing here unpickles, and a damaged or hostile file raises a
:class:`~fewbits.errors.FileError` and nothing else.
"""

from fewbits.codec._base import base_of
from fewbits.codec._container import Known, decode, encode
from fewbits.codec._difference import Base
from fewbits.codec._family import FamilyReader, family, is_family
from fewbits.codec._measure import Decoded, Examined, examine, measure
from fewbits.codec._part import PartReader
from fewbits.codec._shapes import shapes
from fewbits.codec._summary import OperationSummary, Summary, TensorSummary, inspect
from fewbits.codec.coder import backend

__all__ = [
    "Base",
    "Decoded",
    "Examined",
    "FamilyReader",
    "Known",
    "OperationSummary",
    "PartReader",
    "Summary",
    "TensorSummary",
    "backend",
    "base_of",
    "decode",
    "encode",
    "examine",
    "family",
    "inspect",
    "is_family",
    "measure",
    "shapes",
]
