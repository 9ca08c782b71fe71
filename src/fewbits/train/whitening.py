"""ZCA whitening of inputs (Bell and Sejnowski 1997), as a fixed first layer of the network.

With the covariance ``S = U diag(l) U^T`` of the samples, ``x <- U diag(l + eps)^(-1/2) U^T (x - mean)``: the whitened
samples nearest to the samples themselves, with covariance one.

A layer, and no transform of the data: it then lies in the file, is exported, and runs wherever the network does. Whole
images would take as many weights as pixels squared, so of images and series it is a convolution: the rows of a patch's
whitening that make its middle.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError
from fewbits.train.moments import Moments


class Whitened(nn.Sequential):
    """A network behind a fixed layer that whitens its inputs: ``whitening`` and ``network``.

    Args:
        network: any that takes one tensor.
        shape: of one sample.
        size: pixels of a patch's side, odd, for images ``[C, H, W]`` and series ``[C, L]``; ``None``: the whole sample
            at once, exactly, with as many weights as it has values squared.

    The layer is the identity until :meth:`fit`. It is not trained, and stays floats when the network is compressed.

    Raises:
        RecipeError: a size that is even, larger than the sample, or of samples without places.
    """

    whitening: Whitening

    def __init__(self, network: nn.Module, shape: tuple[int, ...], size: int | None = 5) -> None:
        if size is not None:
            odd = isinstance(size, int) and not isinstance(size, bool) and size > 0 and size % 2 == 1
            if not odd or size > min(shape[1:], default=size):
                raise RecipeError(f"whitening takes patches of odd size within samples of shape {shape}, got {size!r}")
        if len(shape) > 3:
            raise RecipeError(f"whitening is for vectors, series and images, not for samples of shape {shape}")
        super().__init__(OrderedDict(whitening=Whitening(shape, size), network=network))

    def fit(self, batches: Iterable[Any], *, eps: float = 1e-2, samples: int = 10_000) -> None:
        """Take mean and covariance from the first samples.

        Args:
            batches: ``(inputs, targets)``. eps: relative to the mean variance; smaller enlarges what hardly varies.

        Raises:
            DataError: no samples.
        """
        weight, bias = self.whitening.weight, self.whitening.bias
        moments: Moments | None = None
        seen = 0
        for batch in batches:
            inputs = batch[0].to(weight.device)
            rows = _patches(inputs, weight.shape[2:])
            moments = moments or Moments(rows.mean(0))
            moments.add(rows)
            seen += len(inputs)
            if seen >= samples:
                break
        if moments is None:
            raise DataError("whitening needs samples: the training data is empty")
        mean, covariance = moments.mean_and_covariance()
        matrix = zca(covariance, eps)
        side = math.prod(weight.shape[2:])
        rows = torch.arange(len(weight), device=matrix.device) * side + side // 2  # the middle of each channel's patch
        with torch.no_grad():
            weight.copy_(matrix[rows].reshape(weight.shape))
            bias.copy_(-matrix[rows] @ mean)


class Whitening(nn.Module):
    """The fixed layer of :class:`Whitened`: linear on the whole sample, or a convolution of its own size.

    Its numbers are buffers: no optimizer trains them, and no method compresses them.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, shape: tuple[int, ...], size: int | None) -> None:
        super().__init__()
        self.dimensions = 0 if size is None else len(shape) - 1
        count = shape[0] if self.dimensions else math.prod(shape)
        self.register_buffer("weight", torch.zeros(count, count, *[size or 1] * self.dimensions))
        self.register_buffer("bias", torch.zeros(count))
        (nn.init.dirac_ if self.dimensions else nn.init.eye_)(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if not self.dimensions:
            return F.linear(x.flatten(1), self.weight, self.bias).view_as(x)
        side = self.weight.shape[2] // 2
        x = F.pad(x, [side] * 2 * self.dimensions, mode="reflect")
        return (F.conv1d if self.dimensions == 1 else F.conv2d)(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}"


def zca(covariance: Tensor, eps: float) -> Tensor:
    """``U diag(l + eps mean(l))^(-1/2) U^T``, float64 ``[D, D]``."""
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp_min(0)
    return (vectors * (values + eps * values.mean() + 1e-12).rsqrt()) @ vectors.T


def _patches(inputs: Tensor, size: torch.Size) -> Tensor:
    """All patches inside of the samples, as rows ``[n, C * size]``; whole samples without a size."""
    if not size:
        return inputs.flatten(1)
    if len(size) == 1:
        return inputs.unfold(2, size[0], 1).permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
    return F.unfold(inputs, tuple(size)).transpose(1, 2).flatten(0, 1)
