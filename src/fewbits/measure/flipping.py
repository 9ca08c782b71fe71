"""How faithful a map of pixels is: what a network still says when the pixels that it names are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError
from fewbits.task import main_output

SHARES = tuple((step / 16) ** 2 for step in range(17))
"""Of the pixels, close together at first, where curves fall."""


@dataclass(frozen=True)
class FlippingCurve:
    """Probability of the class over the share of pixels taken away, most relevant first; means over images.

    Attributes:
        shares: rising, from 0. scores: softmax probability of the class, 0 to 1.
    """

    shares: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def under(self) -> float:
        """The mean height of the curve, by trapezoids: less is more faithful."""
        steps = zip(self.shares, self.shares[1:], self.scores, self.scores[1:], strict=False)
        return sum((b - a) * (p + q) / 2 for a, b, p, q in steps) / (self.shares[-1] - self.shares[0])

    @property
    def over(self) -> float:
        """The mean fall from where it begins (AOPC, Samek et al. 2017, eq. 12): more is more faithful."""
        return self.scores[0] - self.under


@torch.no_grad()
def flipping_curve(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    heat: Tensor,
    baseline: Tensor,
    shares: Sequence[float] = SHARES,
) -> FlippingCurve:
    """Pixel flipping (Bach et al. 2015, fig. 9; Samek et al. 2017, arXiv 1509.06321).

    Args:
        images, classes: [n, C, H, W], and int64 [n] of which the probability is watched.
        heat: [n, H, W]: pixels go in its falling order, of equal ones the first; all channels of a pixel at once.
        baseline: what pixels become; broadcasts against the images.
        shares: of the pixels that are gone, rising from 0.

    Raises:
        DataError: a map that does not fit the images, or one with NaN.
    """
    if heat.shape != images[:, 0].shape or not bool(torch.isfinite(heat).all()):
        raise DataError(
            f"a map of pixels is finite and has the shape of the images without channels, "
            f"{list(images[:, 0].shape)}, got {list(heat.shape)}"
        )
    rank = heat.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view_as(heat)[:, None]
    scores = []
    with evaluating(model):
        for share in shares:
            gone = rank < round(share * heat[0].numel())
            said = main_output(model(torch.where(gone, baseline, images))).softmax(1)
            scores.append(float(said.gather(1, classes[:, None].to(said.device)).mean()))
    return FlippingCurve(tuple(shares), tuple(scores))


def blank(images: Tensor) -> Tensor:
    """The mean colour of images [n, C, H, W], as an image [1, C, 1, 1] without anything to see."""
    return images.mean((0, 2, 3), keepdim=True)
