"""Human activity from a smartphone's motion sensors: UCI HAPT (Reyes-Ortiz et al. 2016)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch

from fewbits.data import _files as files
from fewbits.data._npz import read_npz
from fewbits.data.dataset import DataSet, Split
from fewbits.data.normalisation import Normalisation
from fewbits.errors import DataError

FILE = "hapt.npz.xz"
WINDOW = 128
CLASSES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "lying")

# The two classes of HAR-2 (Kusupati et al. 2018, arXiv:1901.02358): sitting, lying and walking upstairs
# against the rest.
_BINARY = torch.tensor([1, 0, 1, 0, 1, 0])
_BINARY_CLASSES = ("sitting, lying, walking upstairs", "standing, walking, walking downstairs")

_VALIDATION_SHARE = 0.1


def activity(folder: str | PathLike[str], binary: bool = False) -> DataSet:
    """Windows of 2.56 s, float32 [N, 6, 128]: acceleration (g) and rotation (rad/s) along x, y, z at 50 Hz.

    Nobody is in two splits: UCI's nine test users are the test split, two of the other users validation.
    Windows overlap by half.

    Args:
        folder: with ``hapt.npz.xz``, or the file itself.
        binary: give the two classes of HAR-2 in place of the six.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise files.missing("activity", path.parent, [path.name], files.HOME_MADE)
    arrays = read_npz(
        path,
        {
            "signals_delta": ("i", 2),
            "scale": ("f", 1),
            "win_start": ("iu", 1),
            "win_label": ("iu", 1),
            "win_subject": ("iu", 1),
            "win_is_test": ("b", 1),
        },
    )
    starts, labels = arrays["win_start"].astype(np.int64), arrays["win_label"].astype(np.int64) - 1
    subjects, is_test = torch.from_numpy(arrays["win_subject"].astype(np.int64)), arrays["win_is_test"]
    deltas, scale = arrays["signals_delta"], arrays["scale"].astype(np.float64)
    channels, length = deltas.shape
    lengths = {len(starts), len(labels), len(subjects), len(is_test)}
    if scale.shape != (channels,) or len(lengths) > 1:
        raise DataError(f"{path}: the lengths of its arrays contradict each other")
    if not len(starts) or starts.min() < 0 or starts.max() + WINDOW > length:
        raise DataError(f"{path}: a window lies outside the {length} samples")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{path}: a label lies outside 1..{len(CLASSES)}")
    # The file holds differences that wrap around in 16 bits, because they pack better.
    signals = np.cumsum(deltas, axis=1, dtype=np.int16)
    windows = signals[:, starts[:, None] + np.arange(WINDOW)].transpose(1, 0, 2)
    inputs = torch.from_numpy((windows * scale[:, None]).astype(np.float32))
    targets = torch.from_numpy(labels)
    whole = Split(inputs, _BINARY[targets] if binary else targets)
    test = torch.from_numpy(np.ascontiguousarray(is_test))
    validation = torch.isin(subjects, _validation_subjects(subjects[~test])) & ~test
    train = whole.subset((~test & ~validation).nonzero().squeeze(1))
    return DataSet(
        "activity",
        train,
        whole.subset(validation.nonzero().squeeze(1)),
        whole.subset(test.nonzero().squeeze(1)),
        classes=_BINARY_CLASSES if binary else CLASSES,
        normalisation=Normalisation(
            tuple(train.inputs.mean(dim=(0, 2)).tolist()),
            tuple(train.inputs.std(dim=(0, 2), correction=0).clamp_min(1e-6).tolist()),
        ),
    )


def _validation_subjects(subjects: torch.Tensor) -> torch.Tensor:
    known = subjects.unique()
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    return known[order[: max(1, round(len(known) * _VALIDATION_SHARE))]]
