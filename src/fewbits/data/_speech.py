"""Google Speech Commands v0.02 as MFCC features (Warden 2018, arXiv:1804.03209), 12 classes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewbits.data import _files as files
from fewbits.data._npz import Array, read_npz
from fewbits.data.dataset import DataSet, Split
from fewbits.data.normalisation import Normalisation
from fewbits.errors import DataError, RecipeError, did_you_mean

LAYOUTS = {"15x17": "speech_commands_mfcc15x17.npz", "10x49": "speech_commands_mfcc10x49.npz.xz"}


def speech_commands(folder: str | PathLike[str], layout: str = "15x17") -> DataSet:
    """34,747 / 4,179 / 4,586 one-second clips by the official split: ten words, ``_unknown_``, ``_silence_``.

    Args:
        folder: with the file of the layout (:data:`LAYOUTS`), or the file itself.
        layout: ``"15x17"`` gives float32 [N, 255], 15 coefficients x 17 frames, the input of MLP_GSC;
            ``"10x49"`` gives float32 [N, 10, 49] for convolutions over time.

    The features are rounded to 8 bits in the file and normalised by coefficient over the training split.

    Raises:
        DataError: the file is missing or damaged.
        RecipeError: an unknown layout.
    """
    if layout not in LAYOUTS:
        raise RecipeError(f"no layout {layout!r}{did_you_mean(layout, LAYOUTS)} (known: {', '.join(LAYOUTS)})")
    path = Path(folder)
    path = path / LAYOUTS[layout] if path.is_dir() else path
    if not path.is_file():
        raise files.missing("speech-commands", path.parent, [path.name], files.HOME_MADE)
    head = {"scale": ("f", 1), "mean": ("f", 1), "label": ("u", 1), "split": ("u", 1), "classes": ("U", 1)}
    if layout == "15x17":
        arrays = read_npz(path, {"features": ("i", 3), **head})
        coded = arrays["features"]
    else:
        arrays = read_npz(path, {"mfcc": ("i", 3), **head})
        coded = arrays["mfcc"].transpose(2, 0, 1)
    features = _decode(path, coded, arrays)
    moments = _moments(features[torch.from_numpy(arrays["split"] == 0)], path)
    frames = features.shape[2]
    if layout == "15x17":
        features = features.flatten(1)
        moments = tuple(values.repeat_interleave(frames) for values in moments)  # one per input, not per row
    targets = torch.from_numpy(arrays["label"].astype(np.int64))
    whole, split = Split(features, targets), torch.from_numpy(arrays["split"].astype(np.int64))
    train, validation, test = (whole.subset((split == code).nonzero().squeeze(1)) for code in range(3))
    classes = tuple(str(name) for name in arrays["classes"])
    mean, std = moments
    return DataSet(
        "speech-commands",
        train,
        validation,
        test,
        classes,
        Normalisation(tuple(mean.tolist()), tuple(std.tolist())),
    )


def _decode(path: Path, coded: NDArray[np.generic], arrays: dict[str, Array]) -> torch.Tensor:
    """float32 [N, coefficients, frames] = code * scale + mean, by coefficient."""
    count, coefficients, _ = coded.shape
    if arrays["scale"].shape != (coefficients,) or arrays["mean"].shape != (coefficients,):
        raise DataError(f"{path}: scale and mean must have {coefficients} values, one per coefficient")
    if arrays["label"].shape != (count,) or arrays["split"].shape != (count,):
        raise DataError(f"{path}: label and split must have {count} values, one per clip")
    scale, mean = (torch.from_numpy(arrays[name].astype(np.float32))[:, None] for name in ("scale", "mean"))
    features = torch.from_numpy(coded.astype(np.float32)).mul_(scale).add_(mean)
    if not torch.isfinite(features).all():
        raise DataError(f"{path} holds NaN or infinity")
    return features


def _moments(features: torch.Tensor, path: Path) -> tuple[torch.Tensor, ...]:
    if not len(features):
        raise DataError(f"{path} has no training clips")
    return features.mean(dim=(0, 2)), features.std(dim=(0, 2), correction=0).clamp_min(1e-6)
