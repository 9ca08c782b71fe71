"""Named arrays in ``.npz`` files, optionally compressed once more with xz. Pickles are refused."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import DataError
from fewbits.files import replacing, uninterrupted

# Above the 184 MB of CIFAR-10; a hostile xz file stops here instead of filling the memory.
LIMIT = 400_000_000

_DAMAGE = (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)

Array = NDArray[np.generic]


def read_npz(path: Path, wanted: Mapping[str, tuple[str, int]]) -> dict[str, Array]:
    """Arrays by name.

    Args:
        path: a ``.npz`` or ``.npz.xz`` file.
        wanted: name -> (numpy kind such as ``"u"`` or ``"iu"``, number of dimensions).

    Raises:
        DataError: the file is missing or damaged, or an array is missing, pickled or of another kind.
    """
    try:
        source: Path | io.BytesIO = io.BytesIO(_unpack(path)) if path.suffix == ".xz" else path
        file = np.load(source, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is not a .npz file")
        with file:
            if file.zip is None or sum(info.file_size for info in file.zip.infolist()) > LIMIT:
                raise DataError(f"{path} declares more than {LIMIT} bytes")
            absent = [name for name in wanted if name not in file.files]
            if absent:
                raise DataError(f"{path} lacks the array {absent[0]!r} (it has: {', '.join(file.files)})")
            arrays = {name: file[name] for name in wanted}
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path} is not a sound .npz file: {error}") from error
    for name, (kinds, ndim) in wanted.items():
        array = arrays[name]
        if array.dtype.kind not in kinds or array.ndim != ndim:
            raise DataError(f"{path}: {name!r} is {array.dtype} {list(array.shape)}, not as expected")
    return arrays


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write all of it or nothing, see :func:`fewbits.files.replacing`. Ctrl-C waits until it is there."""
    with uninterrupted(), replacing(path) as beside, open(beside, "wb") as file:  # zip archives complain of Ctrl-C
        np.savez(file, allow_pickle=False, **arrays)


def _unpack(path: Path) -> bytes:
    with lzma.open(path) as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise DataError(f"{path} unpacks to more than {LIMIT} bytes")
    return content
