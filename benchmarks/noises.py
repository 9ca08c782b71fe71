"""What spoils images: noise, dead pixels, blur; at test, and in training."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def gaussian(x: Tensor, generator: Generator) -> Tensor:
    """With noise of half the images' own standard deviation."""
    return x + 0.5 * x.std() * torch.randn(x.shape, generator=generator)


def salt_and_pepper(x: Tensor, generator: Generator) -> Tensor:
    """A twentieth of the pixels black or white."""
    drawn = torch.rand(x.shape[0], 1, *x.shape[2:], generator=generator)
    return x.masked_fill(drawn < 0.025, float(x.min())).masked_fill(drawn > 0.975, float(x.max()))


def blurred(x: Tensor, generator: Generator) -> Tensor:
    """The mean of three by three pixels."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)


NOISES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "gaussian": gaussian, "salt_and_pepper": salt_and_pepper, "blurred": blurred,
}  # fmt: skip


class Spoiled:
    """Batches of a loader with a noise over their images, drawn anew for every epoch.

    Args:
        name: of :data:`NOISES`.
    """

    def __init__(self, loader: Any, name: str, seed: int = 0) -> None:
        self.loader, self.noise, self.seed, self.epoch = loader, NOISES[name], seed, 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """As the training loop tells it."""
        self.epoch = epoch
        self.loader.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = Generator().manual_seed(1000 * self.seed + self.epoch)
        for x, targets in self.loader:
            yield self.noise(x, generator), targets
