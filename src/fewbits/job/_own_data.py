"""Data of one's own: what a function returned, as train, validation and perhaps test batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fewbits.errors import DataError, FewbitsError, RecipeError
from fewbits.job._own_code import blame
from fewbits.task import Feed
from fewbits.task.feed import Given

SPLITS = ("train", "validation", "test")
_FORM = "return (train, validation) or (train, validation, test), or a dict with these keys, of DataLoaders or lists"


@dataclass(frozen=True, eq=False)
class OwnData:
    """Batches as a user's function made them. They are fed as they are: nothing is normalised or augmented.

    Attributes:
        name: of the function. train: batches with a length. validation, test: what can be iterated again and again;
            ``test`` may be ``None``. inputs, targets: which parts of a batch they are, if the recipe says so.
    """

    name: str
    train: Any
    validation: Any
    test: Any = None
    inputs: Given = None
    targets: Given = None

    classes: ClassVar[None] = None  # their names are not known
    normalisation: ClassVar[None] = None

    def feed(self, network: nn.Module) -> Feed:
        """What splits batches for a network."""
        return Feed(network, self.inputs, self.targets)

    def batches(self, split: str) -> Iterator[Any]:
        """A split's batches, from the first.

        Raises:
            DataError: there is none, or the user's code fails; the message says at which batch.
        """
        count = 0
        try:
            for batch in getattr(self, split):
                yield batch
                count += 1
        except FewbitsError:
            raise
        except Exception as error:
            place = f"batch {count + 1} of the {split} data of {self.name}"
            raise DataError(f"{place} cannot be made: {blame(error)}") from error
        if not count:
            raise DataError(f"{self.name}: {split} is empty: it yields no batch")

    def first(self, split: str) -> Any:
        """A split's first batch, the same in every process if PyTorch draws it; random numbers go on as before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return next(self.batches(split))


def own_data(name: str, returned: Any, *, seed: int, inputs: Given = None, targets: Given = None) -> OwnData:
    """The parts of what a function returned, each looked at.

    Args:
        seed: of the order of training batches, if the loader has none. inputs, targets: which parts of a batch they
            are.

    Raises:
        RecipeError: something else was returned. DataError: a part is empty, or fails.
    """
    parts = {key: value for key, value in _parts(name, returned).items() if value is not None}
    for split in SPLITS[:2]:
        if split not in parts:
            raise RecipeError(f"{name} returned no {split} batches: {_FORM}")
    for split, value in parts.items():
        _check(f"{name}: {split}", value)
    data = OwnData(name, **parts, inputs=inputs, targets=targets)
    for split in SPLITS[1:]:
        if split in parts:
            data.first(split)
    _order(data.train, seed)
    return data


def _order(loader: Any, seed: int) -> None:
    """Draw a loader's order from a seed, so that what is interrupted within an epoch goes on in the same one."""
    sampler = getattr(loader, "sampler", None)
    if isinstance(loader, DataLoader) and loader.generator is None and getattr(sampler, "generator", 0) is None:
        loader.generator = sampler.generator = torch.Generator().manual_seed(seed)  # type: ignore[union-attr]


def _parts(name: str, returned: Any) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        for key in returned:
            if key not in SPLITS:
                raise RecipeError(f"{name} returned a dict with the key {key!r}; its keys are {', '.join(SPLITS)}")
        return dict(returned)
    if isinstance(returned, tuple) and len(returned) in (2, 3):
        return dict(zip(SPLITS, returned, strict=False))
    raise RecipeError(f"{name} returned {described(returned)}: {_FORM}")


def _check(what: str, value: Any) -> None:
    if isinstance(value, Dataset):
        raise RecipeError(
            f"{what} is a {type(value).__name__} of single samples; put it into a DataLoader(..., batch_size=64)"
        )
    batches = "batches are needed, a DataLoader or a list of (inputs, targets)"
    arrays = isinstance(value, Tensor | np.ndarray)
    if arrays or isinstance(value, str | Mapping | nn.Module) or not hasattr(value, "__iter__"):
        raise RecipeError(f"{what} is {described(value)}; {batches}")
    if not isinstance(value, DataLoader) and iter(value) is value:
        raise RecipeError(
            f"{what} is a {type(value).__name__}, which can be read only once; {batches}: list(...) makes one"
        )
    if isinstance(value, tuple) and value and all(isinstance(part, Tensor | np.ndarray) for part in value):
        raise RecipeError(
            f"{what} is {described(value)}, which are no batches; cut them: list(zip(x.split(64), y.split(64)))"
        )
    if hasattr(value, "__len__") and not len(value):
        raise DataError(f"{what} is empty: it yields no batch")


def described(value: Any) -> str:
    """What something is, in a few words: ``a tuple (Tensor [64, 3, 8, 8], Tensor [64])``."""
    if value is None:
        return "None"
    kind = type(value).__name__
    kind = f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
    if isinstance(value, Tensor | np.ndarray):
        return f"{kind} {list(value.shape)}"
    if isinstance(value, tuple) or (isinstance(value, list) and any(isinstance(part, Tensor) for part in value[:4])):
        return f"{kind} ({', '.join(map(_bare, value[:4]))}{', ...' if len(value) > 4 else ''})"
    if isinstance(value, Mapping):
        return f"{kind} with the keys {', '.join(map(str, list(value)[:8]))}"
    if isinstance(value, list):
        return f"{kind} of {len(value)}"
    return kind


def _bare(value: Any) -> str:
    return described(value).removeprefix("a ").removeprefix("an ")
