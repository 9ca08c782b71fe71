"""Which pixels a classifier's decision rests on, by several methods: relevance, three of gradients, and chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fewbits.attach import evaluating
from fewbits.errors import DataError, UnsupportedError
from fewbits.measure.relevance import How, Rules, relevance
from fewbits.task import main_output


class Attribution(Protocol):
    """Of images [n, C, H, W] and classes int64 [n]: how much each pixel spoke for the class, [n, H, W].

    ``baseline``, which broadcasts against the images, is an image without anything to see.
    """

    def __call__(self, model: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor) -> Tensor: ...


def lrp(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    baseline: Tensor | None = None,
    *,
    rules: Rules | str = "plus",
    start: str = "score",
    operations: Mapping[Any, How] | None = None,
) -> Tensor:
    """Relevance of the pixels by :func:`fewbits.measure.relevance`, summed over channels; it needs no baseline."""
    batch = [(images, classes)]
    found = relevance(model, batch, rules=rules, start=start, inputs=True, operations=operations).inputs
    assert found is not None  # asked for
    return found.detach().sum(1).float()


def gradient_x_input(model: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor | None = None) -> Tensor:
    """``sum_c x_c df/dx_c`` (Shrikumar et al. 2016, arXiv 1605.01713)."""
    return (images * _gradient(model, images, classes)).sum(1)


def integrated_gradients(
    model: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor, *, steps: int = 24
) -> Tensor:
    """``(x - b) * integral of df/dx at b + a (x - b) over a from 0 to 1`` (Sundararajan et al. 2017, eq. 1).

    Args:
        steps: points of Gauss and Legendre's rule for the integral.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    way = images - baseline
    total = torch.zeros_like(images)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        total += float(weight) * _gradient(model, baseline + float(point) * way, classes)
    return (way * total).sum(1)


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor | None = None) -> Tensor:
    """``relu(sum_k a_k A_k)`` with ``a_k`` the mean over places of ``df/dA_k`` (Selvaraju et al. 2017, eq. 1 and 2).

    ``A`` is what the last module gives whose output is a map [n, K, h, w] of more than one place; maps are brought to
    the size of the image, bilinearly.

    Raises:
        UnsupportedError: no module gives such a map.
    """
    with evaluating(model), torch.enable_grad(), _maps(model) as seen:
        score = _score(model, images.detach().requires_grad_(), classes)
        if not seen:
            raise UnsupportedError(
                f"Grad-CAM needs a module that gives maps [n, channels, height, width], and {type(model).__name__} has "
                "none: use lrp or integrated_gradients"
            )
        (gradient,) = torch.autograd.grad(score, seen[-1])
    cam = (gradient.mean((2, 3), keepdim=True) * seen[-1].detach()).sum(1, keepdim=True).relu()
    return interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def chance(model: nn.Module, images: Tensor, classes: Tensor, baseline: Tensor | None = None) -> Tensor:
    """Numbers drawn at random, always the same ones: what the others are compared with."""
    drawn = torch.rand(images[:, 0].shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(images.device)


ATTRIBUTIONS: dict[str, Attribution] = {
    "LRP": lrp,
    "Integrated Gradients": integrated_gradients,
    "Grad-CAM": grad_cam,
    "gradient x input": gradient_x_input,
    "random": chance,
}


def _gradient(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    with evaluating(model), torch.enable_grad():
        given = images.detach().requires_grad_()
        (found,) = torch.autograd.grad(_score(model, given, classes), given)
    return found


def _score(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The sum over samples of the score of each one's class, so that gradients of samples are apart."""
    scores = main_output(model(images))
    if scores.dim() != 2 or len(classes) != len(images):
        raise DataError(
            f"pixels are attributed to one class for each image: the network gives {list(scores.shape)} for "
            f"{len(images)} images, and there are {len(classes)} classes"
        )
    return scores.gather(1, classes[:, None].to(scores.device)).sum()


@contextmanager
def _maps(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what modules give that is a map and has a graph, in the order of their ends."""
    seen: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1 and output.requires_grad:
            seen.append(output)

    handles = [m.register_forward_hook(hook) for m in model.modules() if m is not model]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
