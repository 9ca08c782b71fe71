"""Images moved and mirrored at random, as is customary for CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewbits.errors import RecipeError, did_you_mean

FILLS = ("black", "edge")


@dataclass(frozen=True)
class CropFlip:
    """Pad, crop at random to the old size, and mirror every other image.

    Attributes:
        padding: pixels on each side.
        flip: whether to mirror left to right with probability one half.
        fill: what the padding shows, ``black`` or the nearest pixel of the ``edge``.

    Raises:
        RecipeError: a negative padding, or an unknown fill.
    """

    padding: int = 4
    flip: bool = True
    fill: str = "black"

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise RecipeError(f"an augmentation cannot pad by {self.padding} pixels")
        if self.fill not in FILLS:
            raise RecipeError(f"no augmentation fills with {self.fill!r}{did_you_mean(self.fill, FILLS)}")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Choices for ``count`` images: int64 [count, 3], the crop's top and left, and 1 to mirror."""
        corners = torch.randint(2 * self.padding + 1, (count, 2), generator=generator)
        mirrored = torch.randint(2, (count, 1), generator=generator)
        return torch.cat([corners, mirrored if self.flip else torch.zeros_like(mirrored)], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """The augmented copy of ``images`` [N, C, H, W], not yet normalised, so that 0 is black.

        ``choices`` are on the device of the images.
        """
        count, channels, height, width = images.shape
        place = images.device
        top, left, mirrored = choices.unsqueeze(2).unbind(1)
        rows = top + torch.arange(height, device=place)
        columns = torch.arange(width, device=place).expand(count, width)
        columns = left + torch.where(mirrored == 1, width - 1 - columns, columns)
        if self.fill == "edge":
            rows = (rows - self.padding).clamp(0, height - 1)
            columns = (columns - self.padding).clamp(0, width - 1)
        else:
            images = F.pad(images, (self.padding,) * 4)
        return images[
            torch.arange(count, device=place)[:, None, None, None],
            torch.arange(channels, device=place)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
