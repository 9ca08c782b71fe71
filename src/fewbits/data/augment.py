"""The customary augmentation of CIFAR images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CropFlip:
    """Pad with black, crop at random to the old size, and mirror every other image.

    Attributes:
        padding: pixels on each side.
        flip: whether to mirror left to right with probability one half.
    """

    padding: int = 4
    flip: bool = True

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Choices for ``count`` images: int64 [count, 3], the crop's top and left, and 1 to mirror."""
        corners = torch.randint(2 * self.padding + 1, (count, 2), generator=generator)
        mirrored = torch.randint(2, (count, 1), generator=generator)
        return torch.cat([corners, mirrored if self.flip else torch.zeros_like(mirrored)], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """The augmented copy of ``images`` [N, C, H, W], not yet normalised, so that 0 is black."""
        count, channels, height, width = images.shape
        top, left, mirrored = choices.unsqueeze(2).unbind(1)
        padded = F.pad(images, (self.padding,) * 4)
        rows = top + torch.arange(height)
        columns = torch.arange(width).expand(count, width)
        columns = left + torch.where(mirrored == 1, width - 1 - columns, columns)
        return padded[
            torch.arange(count)[:, None, None, None],
            torch.arange(channels)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
