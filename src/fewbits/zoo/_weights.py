"""Trained weights from ``.safetensors`` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fewbits.data.normalisation import Normalisation
from fewbits.errors import DataError, MismatchError, NonFiniteError, did_you_mean

# A counter that older checkpoints lack and that evaluation never reads.
_OPTIONAL = "num_batches_tracked"


def load_weights(model: nn.Module, path: str | PathLike[str]) -> dict[str, str]:
    """Fill ``model`` with the tensors of a file; half precision is widened to the model's.

    Nothing is changed unless everything fits.

    Returns:
        the file's own text metadata (source, licence, input normalisation), empty if it has none.

    Raises:
        DataError: the file is missing or damaged.
        MismatchError: a tensor is missing, unknown, or of another shape or kind.
        NonFiniteError: a tensor holds NaN or infinity.
    """
    tensors, metadata = _read(Path(path))
    wanted = model.state_dict()
    for name, tensor in tensors.items():
        if name not in wanted:
            raise MismatchError(f"{path} has a tensor {name!r} that the network lacks{did_you_mean(name, wanted)}")
        mine = wanted[name]
        if tensor.shape != mine.shape:
            raise MismatchError(f"{name!r} is {list(tensor.shape)} in {path} but {list(mine.shape)} in the network")
        if tensor.is_floating_point() != mine.is_floating_point():
            raise MismatchError(f"{name!r} is {tensor.dtype} in {path} but {mine.dtype} in the network")
        if not torch.isfinite(tensor).all() and not torch.equal(
            tensor, mine
        ):  # a mask of infinities is the network's own
            raise NonFiniteError(f"{name!r} in {path} holds NaN or infinity")
    for name in wanted:
        if name not in tensors and not name.endswith(_OPTIONAL):
            raise MismatchError(f"{path} lacks the network's tensor {name!r}{did_you_mean(name, tensors)}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            wanted[name].copy_(tensor)
    return metadata


def normalisation(metadata: Mapping[str, str]) -> Normalisation | None:
    """How the inputs of a network must be normalised, from its file's metadata; ``None`` if it does not say.

    ``normalise: "mean a b c std d e f"`` is on the scale of x / 255; ``input: "raw ..."`` means 0 to 255.

    Raises:
        DataError: the entry cannot be understood.
    """
    text = metadata.get("normalise")
    if text is not None:
        match = re.fullmatch(r"mean ([-+.e\d ]+) std ([-+.e\d ]+)", text.strip())
        try:
            mean, std = (tuple(map(float, group.split())) for group in match.groups()) if match else ((), ())
            return Normalisation(mean, std)
        except ValueError as error:
            message = f"cannot read the normalisation {text!r}: expected 'mean a b c std d e f'"
            raise DataError(message) from error
    if metadata.get("input", "").startswith("raw"):
        return Normalisation((0.0,), (1 / 255,))
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise DataError(f"no weight file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a sound .safetensors file: {error}") from error
