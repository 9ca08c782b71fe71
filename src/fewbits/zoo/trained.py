"""Trained weights that their authors publish, fetched when asked for and kept as ``.safetensors``."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import pickle
import tempfile
import urllib.request
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save_file

from fewbits.data.load import home
from fewbits.errors import DataError, RecipeError, did_you_mean

_LARGEST = 1 << 26  # bytes; the published files have one to four million


@dataclass(frozen=True)
class Published:
    """A checkpoint at its author's address. ``sha256`` is of the file there."""

    url: str
    sha256: str
    metadata: dict[str, str]


# Yerlan Idelbayev's CIFAR-10 ResNets (BSD-2-Clause), https://github.com/akamaster/pytorch_resnet_cifar10
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
_CIFAR = {"normalise": "mean .485 .456 .406 std .229 .224 .225", "licence": "BSD-2-Clause, (c) 2018 Yerlan Idelbayev"}
PUBLISHED = {
    "resnet-20": Published(
        _AKAMASTER + "resnet20-12fca82f.th",
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        _CIFAR | {"test_accuracy": "91.73"},
    ),
    "resnet-56": Published(
        _AKAMASTER + "resnet56-4bfd9763.th",
        "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        _CIFAR | {"test_accuracy": "93.39"},
    ),
}


def weights_file(name: str, folder: str | PathLike[str] | None = None) -> Path:
    """Where the trained weights of a network lie once they were fetched (there may be no file yet)."""
    return (home() if folder is None else Path(folder)) / "weights" / f"{name}.safetensors"


def fetch_weights(name: str, folder: str | PathLike[str] | None = None, *, timeout: float = 20.0) -> Path:
    """Download a published checkpoint, verify it, and keep it as safetensors; one that is there is left alone.

    Args:
        name: a key of :data:`PUBLISHED`.
        folder: ``None`` means ``FEWBITS_DATA`` or ``~/.cache/fewbits``.
        timeout: seconds that the address may stay silent.

    Raises:
        RecipeError: no published weights of that name.
        DataError: the address cannot be reached, or another file than the published one arrived.
    """
    if name not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        raise RecipeError(f"no published weights for {name!r}{did_you_mean(name, PUBLISHED)} (known: {known})")
    target = weights_file(name, folder)
    if target.is_file():
        return target
    source = PUBLISHED[name]
    data = _download(source.url, timeout)
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise DataError(f"{source.url} arrived with the SHA-256 {digest}, not {source.sha256}: not the published file")
    tensors = _tensors(data, source.url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".weights-") as scratch:
            fresh = Path(scratch) / target.name
            save_file(tensors, fresh, metadata=source.metadata | {"source": source.url})
            os.replace(fresh, target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error}") from error
    return target


def _download(url: str, timeout: float) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "fewbits"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            data: bytes = response.read(_LARGEST + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"cannot fetch {url}: {getattr(error, 'reason', None) or error}") from error
    if len(data) > _LARGEST:
        raise DataError(f"{url} has more than {_LARGEST} bytes: not the published file")
    return data


def _tensors(data: bytes, url: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that a data-parallel run saved, read without running any code of it."""
    try:
        found = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")["state_dict"]
        return {key.removeprefix("module."): tensor.contiguous() for key, tensor in found.items()}
    except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{url} holds no checkpoint that can be read safely: {error}") from error
