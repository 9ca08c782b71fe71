"""The levels of a plan as a bitstream of the MPEG standard for neural networks (ISO/IEC 15938-17).

The reference coder is the ``nncodec`` package (an optional extra, BSD licence without a patent grant). It codes
integers exactly if its own quantization stays off. Only the levels travel: the standard's files have places for
other numbers too, but not for float32 step sizes exactly as they are.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewbits import files
from fewbits.errors import FormatError, MissingExtraError, RecipeError
from fewbits.plan import Plan


@dataclass(frozen=True)
class Written:
    """What :func:`to_nnc` wrote: bytes of the file, tensors and levels in it."""

    bytes: int
    tensors: int
    count: int


def _nnc() -> Any:
    try:
        from nncodec import nnc
    except ImportError as error:
        raise MissingExtraError("nncodec", "nnc", "reading and writing NNC files") from error
    return nnc


def to_nnc(plan: Plan, path: str | os.PathLike[str]) -> Written:
    """Write the levels of all clustered tensors, then read them back and compare.

    Raises:
        MissingExtraError: ``nncodec`` is not installed. RecipeError: the plan has no clustered tensor.
        FormatError: other integers came back; nothing is written then. FileError: the file cannot be written.
    """
    nnc = _nnc()
    levels = {name: entry.levels.cpu().numpy().astype(np.int32) for name, entry in plan.clustered.items()}
    if not levels:
        raise RecipeError("the file holds no clustered tensor, so there are no levels to export")
    with tempfile.TemporaryDirectory() as folder:  # the package writes a file whether asked to or not
        beside = Path(folder) / "levels.nnc"
        nnc.compress(
            levels, param_opt=True, use_dq=False, return_bitstream=True, verbose=False, bitstream_path=str(beside)
        )
        back = from_nnc(beside)
        for name, array in levels.items():
            if name not in back or not np.array_equal(back[name].numpy(), array):
                raise FormatError(f"the levels of {name!r} did not come back from nncodec as they were")
        data = beside.read_bytes()
    files.write(path, data)
    return Written(len(data), len(levels), sum(array.size for array in levels.values()))


def from_nnc(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The integers of an NNC bitstream, int16 by name. For files that :func:`to_nnc` wrote: trusted ones.

    Raises:
        MissingExtraError: ``nncodec`` is not installed. FileError: the file cannot be read.
        FormatError: it holds numbers that are not integers of 16 bits.
    """
    files.read(path)  # says in one sentence what is wrong with the path
    found: dict[str, Tensor] = {}
    for name, values in _nnc().decompress(str(path)).items():
        array = np.asarray(values)
        rounded = np.rint(array)
        if not (array == rounded).all() or (np.abs(rounded) > 32767).any():
            raise FormatError(f"tensor {name!r} of {os.fspath(path)!r} holds numbers that are no 16-bit integers")
        found[name] = torch.from_numpy(rounded.astype(np.int16))
    return found
