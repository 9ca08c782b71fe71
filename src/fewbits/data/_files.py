"""Files of a data set, wherever they lie: in a folder, one folder deeper, or in a tar archive."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from fewbits.errors import DataError

# The largest file of any known set is MNIST's 47 MB of training images.
LIMIT = 400_000_000

# The hint for sets that have no published file of the form that is read here.
HOME_MADE = "docs/data.md says how the file is made"

_DAMAGE = (OSError, EOFError, tarfile.TarError, zlib.error)


def names(path: Path) -> set[str]:
    """Base names of the regular files below ``path``, a folder (two levels) or a tar archive."""
    if path.is_dir():
        return {file.name for file in _files(path)}
    try:
        with tarfile.open(path) as archive:
            return {PurePosixPath(member.name).name for member in archive if member.isreg()}
    except _DAMAGE as error:
        raise DataError(f"{path} is not a sound tar archive: {error}") from error


def read(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """The contents of the files called ``wanted``. Nothing is extracted to disk, so no path can escape.

    Raises:
        DataError: a file is missing, empty, too large, or the archive is damaged.
    """
    found: dict[str, bytes] = {}
    try:
        if path.is_dir():
            for file in _files(path):
                if file.name in wanted and file.name not in found:
                    _check_size(f"{file}", file.stat().st_size)
                    found[file.name] = file.read_bytes()
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    if member.isreg() and name in wanted and name not in found:
                        _check_size(f"{member.name} in {path}", member.size)
                        content = archive.extractfile(member)
                        found[name] = content.read() if content is not None else b""
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: {error}") from error
    for name in wanted:
        if name not in found:
            raise DataError(f"{path} lacks {name}")
    return found


def missing(name: str, path: Path, looked_for: Iterable[str], hint: str = "") -> DataError:
    """The error for a data set that is not there: what was looked for, and how to get it."""
    hint = hint or f"get it with: fewbits data fetch {name}"
    return DataError(f"no {name} in {path} (looked for {', '.join(looked_for)}); {hint}")


def _files(folder: Path) -> list[Path]:
    direct = sorted(file for file in folder.iterdir() if file.is_file())
    deeper = sorted(file for file in folder.glob("*/*") if file.is_file())
    return direct + deeper


def _check_size(name: str, size: int) -> None:
    if size == 0:
        raise DataError(f"{name} is empty")
    if size > LIMIT:
        raise DataError(f"{name} has {size} bytes, more than any file of this data set")
