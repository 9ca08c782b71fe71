"""A data set in memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fewbits.data._augment import CropFlip
from fewbits.data._loader import Order, Samples, as_is
from fewbits.data.normalisation import Normalisation
from fewbits.data.stratify import stratify
from fewbits.errors import DataError, RecipeError, did_you_mean

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their classes.

    Attributes:
        inputs: [N, ...], uint8 (images, 0 to 255) or float32.
        targets: int64 [N], the class of each sample.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.inputs.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"inputs must be uint8 or float32, got {self.inputs.dtype}")
        if self.targets.dtype != torch.int64 or self.targets.ndim != 1:
            raise DataError(f"targets must be int64 [N], got {self.targets.dtype} {list(self.targets.shape)}")
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{len(self.inputs)} inputs do not fit {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> Split:
        """The samples at ``indices`` (int64 [M]), in that order."""
        return Split(self.inputs[indices], self.targets[indices])

    def to(self, device: torch.device | str) -> Split:
        """The same samples on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))

    def hold_out(self, count: int) -> tuple[Split, Split]:
        """(the rest, ``count`` samples with the same shares of the classes), always the same choice."""
        kept, taken = stratify(self.targets, count)
        return self.subset(kept), self.subset(taken)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Three disjoint splits; ``validation`` is carved out of the published training data, never out of test.

    Attributes:
        name: as in :func:`fewbits.data.load`.
        classes: the name of each class.
        normalisation: what :meth:`loader` applies.
        augmentation: the customary one of this data set, or ``None``.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    normalisation: Normalisation = field(default_factory=Normalisation)
    augmentation: CropFlip | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            targets = self.split(split).targets
            if not len(targets):
                raise DataError(f"{self.name}: the {split} split is empty")
            if targets.min() < 0 or targets.max() >= len(self.classes):
                raise DataError(
                    f"{self.name}: {split} has a class outside 0..{len(self.classes) - 1}, "
                    f"namely {int(targets.min())} or {int(targets.max())}"
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.train.inputs.shape[1:])

    def split(self, name: str) -> Split:
        """``train``, ``validation`` or ``test``."""
        if name not in SPLITS:
            known = ", ".join(SPLITS)
            raise RecipeError(f"no split is called {name!r}{did_you_mean(name, SPLITS)} (known: {known})")
        found: Split = getattr(self, name)
        return found

    def normalised(self, normalisation: Normalisation) -> DataSet:
        """The same samples, normalised as a given network wants them."""
        return dataclasses.replace(self, normalisation=normalisation)

    def loader(
        self,
        split: str,
        batch_size: int = 128,
        *,
        shuffle: bool = False,
        augment: bool | CropFlip = False,
        drop_last: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of (normalised float32 inputs [B, ...], int64 targets [B]).

        Iterating again gives the next epoch, in another order and with other augmentations. Both depend on
        ``seed``, the epoch and the sample alone, so they are the same for any batch size or number of
        processes, and ``loader.sampler.set_epoch(k)`` resumes at epoch k.

        Args:
            augment: true for the data set's customary augmentation, or another one, for images [N, C, H, W].
            device: where the split's samples go and batches are made, augmentation included.

        Raises:
            RecipeError: an unknown split, a batch size below 1, no customary augmentation, or samples that are no
                images.
        """
        if batch_size < 1:
            raise RecipeError(f"the batch size must be at least 1, got {batch_size}")
        chosen = self.split(split).to(device)
        samples = Samples(chosen.inputs, chosen.targets, self.normalisation, self._augmentation(augment), seed)
        return DataLoader(
            samples,
            batch_size=batch_size,
            sampler=Order(len(samples), shuffle, seed),
            collate_fn=as_is,
            drop_last=drop_last,
            generator=torch.Generator().manual_seed(seed),  # else every epoch would advance the global one
        )

    def _augmentation(self, augment: bool | CropFlip) -> CropFlip | None:
        if not augment:
            return None
        if not isinstance(augment, CropFlip):
            if self.augmentation is None:
                raise RecipeError(
                    f"{self.name} has no customary augmentation: leave augment out, or say how (padding, flip, fill)"
                )
            return self.augmentation
        if len(self.input_shape) != 3:
            raise RecipeError(f"{self.name}: samples of shape {self.input_shape} are no images and cannot be cropped")
        return augment
