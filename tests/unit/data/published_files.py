"""Data sets as they are published, small: what several tests write."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import numpy as np


def labels(count: int, classes: int) -> np.ndarray:
    """Each class in turn, uint8."""
    return (np.arange(count) % classes).astype(np.uint8)


def pack(folder: Path, archive: Path, inside: str) -> None:
    """The folder's files as a ``.tar.gz``, in a folder ``inside``."""
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"{inside}/{file.name}")


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An ``.npz``, or one in ``.xz``."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    content = packed.getvalue()
    path.write_bytes(lzma.compress(content, preset=0) if path.suffix == ".xz" else content)
