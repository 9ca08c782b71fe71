"""Real handwriting that ships with scikit-learn: nothing to download."""

from __future__ import annotations

import torch

from fewbits.data.dataset import DataSet, Split
from fewbits.data.normalisation import Normalisation
from fewbits.errors import MissingExtraError

TEST, VALIDATION = 540, 180


def digits() -> DataSet:
    """1,077 / 180 / 540 grey digits, float32 [N, 1, 8, 8] in [0, 1] (Alpaydin and Kaynak 1998, UCI).

    The split is ours, by class and always the same: scikit-learn holds UCI's test part alone, without the
    writers by which UCI split.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data", "the digits data set") from error
    images, labels = load_digits(return_X_y=True)
    whole = Split(
        torch.from_numpy(images).to(torch.float32).div_(16).reshape(-1, 1, 8, 8),
        torch.from_numpy(labels).to(torch.int64),
    )
    rest, test = whole.hold_out(TEST)
    train, validation = rest.hold_out(VALIDATION)
    return DataSet(
        "digits",
        train,
        validation,
        test,
        classes=tuple("0123456789"),
        normalisation=Normalisation((train.inputs.mean().item(),), (train.inputs.std().item(),)),
    )
