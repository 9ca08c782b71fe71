"""A part of a data set that keeps the shares of the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from fewbits.errors import DataError


def stratify(targets: Tensor, take: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Take ``take`` samples so that every class gives its share, rounded by the largest remainder.

    Args:
        targets: int64 [N].
        take: how many samples, 1 to N - 1.
        seed: of the choice within each class.

    Returns:
        (indices kept [N - take], indices taken [take]), both ascending.

    Raises:
        DataError: ``take`` is impossible.
    """
    if not 0 < take < len(targets):
        raise DataError(f"cannot take {take} of {len(targets)} samples")
    counts = torch.bincount(targets)
    quotas = counts.double() * take / len(targets)
    shares = quotas.long()
    rest = take - int(shares.sum())
    shares[torch.argsort(quotas - shares, descending=True, stable=True)[:rest]] += 1
    generator = torch.Generator().manual_seed(seed)
    taken = torch.zeros(len(targets), dtype=torch.bool)
    for label, share in enumerate(shares.tolist()):
        members = (targets == label).nonzero().squeeze(1)
        taken[members[torch.randperm(len(members), generator=generator)[:share]]] = True
    return (~taken).nonzero().squeeze(1), taken.nonzero().squeeze(1)
