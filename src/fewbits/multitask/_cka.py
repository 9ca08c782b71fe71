"""How alike two representations of the same samples are: centred kernel alignment with linear kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fewbits.errors import DataError


class CKA:
    """Sums of batches, of which :meth:`value` makes the alignment of two representations.

    ``unbiased``: the HSIC of each batch is the estimate of Song et al. 2012 (eq. 5), whose mean over batches does not
    depend on their size (Nguyen et al., arXiv 2010.15327, eq. 3). It may be below zero, and needs four samples a batch.
    Else it is that of Kornblith et al. (arXiv 1905.00414, eq. 5), ``|Y^T X|^2 / (|X^T X| |Y^T Y|)`` of centred X, Y,
    which approaches 1 where a batch has fewer samples than features.
    """

    def __init__(self, *, unbiased: bool = True) -> None:
        self.unbiased = unbiased
        self.sums = torch.zeros(3, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """A batch of both: ``[n, ...]`` and ``[n, ...]``.

        Raises:
            DataError: other samples in one, or fewer than four (unbiased) or two.
        """
        least = 4 if self.unbiased else 2
        if len(x) != len(y) or len(x) < least:
            raise DataError(f"two representations of the same samples, {least} at least, got {len(x)} and {len(y)}")
        k, m = (_gram(part) for part in (x, y))
        hsic = unbiased_hsic if self.unbiased else biased_hsic
        self.sums += torch.stack([hsic(k, m), hsic(k, k), hsic(m, m)]).cpu()

    def value(self) -> float:
        """The alignment: 1 for representations that are equal up to rotation and scale; NaN where one is constant."""
        both, one, other = self.sums.tolist()
        below = (one * other) ** 0.5 if one > 0 and other > 0 else 0.0
        return both / below if below else float("nan")


def cka(x: Tensor, y: Tensor, *, unbiased: bool = True) -> float:
    """The alignment of two representations ``[n, ...]`` of the same samples; see :class:`CKA`."""
    found = CKA(unbiased=unbiased)
    found.add(x, y)
    return found.value()


def _gram(x: Tensor) -> Tensor:
    flat = x.detach().flatten(1).double()
    flat = flat - flat.mean(0)  # changes neither estimate, and keeps digits
    return flat @ flat.T


def biased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """``tr(K H M H)`` of two Gram matrices ``[n, n]``, with ``H`` the centring matrix; a factor of n cancels in CKA."""
    centred = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
    return (centred * m).sum()


def unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """The unbiased estimate of HSIC from two Gram matrices ``[n, n]`` (Song et al. 2012, eq. 5)."""
    n = len(k)
    k, m = (part - torch.diag(part.diagonal()) for part in (k, m))
    cross = (k.sum(0) * m.sum(0)).sum()
    total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return total / (n * (n - 3))
