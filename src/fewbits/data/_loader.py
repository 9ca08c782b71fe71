"""Samples by their position in an endless, seeded stream of epochs.

Position ``p`` of a split with N samples is sample ``p % N`` in epoch ``p // N``. As everything random about a
sample follows from its position and the seed, neither the batch size nor sharding over processes changes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fewbits.data._augment import CropFlip
from fewbits.data.normalisation import Normalisation

Batch = tuple[Tensor, Tensor]

# Keeps the random numbers of the order and of the augmentation of one epoch apart.
_ORDER, _AUGMENT = 0, 1


def _generator(seed: int, epoch: int, purpose: int) -> torch.Generator:
    # An odd multiplier (2**64 / golden ratio) spreads neighbouring epochs and seeds over all of 64 bits.
    mixed = ((seed * 2 + purpose) * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9) % 2**63
    return torch.Generator().manual_seed(mixed)


class Samples(Dataset[Batch]):
    """A map from positions to normalised, augmented samples; whole batches are fetched at once."""

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        normalisation: Normalisation,
        augmentation: CropFlip | None,
        seed: int,
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.normalisation = normalisation
        self.augmentation = augmentation
        self.seed = seed
        self._drawn: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> Batch:
        inputs, targets = self.__getitems__([position])
        return inputs[0], targets[0]

    def __getitems__(self, positions: list[int]) -> Batch:
        """The batch at ``positions``, on the samples' device.

        PyTorch's loader calls this instead of fetching one by one.
        """
        places = torch.tensor(positions)
        indices = places % len(self)
        there = indices.to(self.inputs.device)
        inputs = self.inputs[there]
        if self.augmentation is not None:
            epochs = places // len(self)
            choices = torch.empty(len(places), 3, dtype=torch.int64)
            for epoch in epochs.unique().tolist():
                chosen = epochs == epoch
                choices[chosen] = self._choices(self.augmentation, epoch)[indices[chosen]]
            inputs = self.augmentation.apply(inputs, choices.to(inputs.device))
        return self.normalisation.apply(inputs), self.targets[there]

    def _choices(self, augmentation: CropFlip, epoch: int) -> Tensor:
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, augmentation.draw(len(self), _generator(self.seed, epoch, _AUGMENT))
        return self._drawn[1]


class Order(Sampler[int]):
    """The positions of one epoch, shuffled or not; each iteration moves on to the next epoch."""

    def __init__(self, count: int, shuffle: bool, seed: int) -> None:
        self.count = count
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one (accelerate calls this, too)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        if self.shuffle:
            order = torch.randperm(self.count, generator=_generator(self.seed, epoch, _ORDER))
        else:
            order = torch.arange(self.count)
        yield from (order + epoch * self.count).tolist()


def as_is(batch: Any) -> Any:
    """Collation for batches that are whole already (PyTorch's type hint expects a list of samples)."""
    return batch
