"""Labels of channels, and which of them are one: a disjoint-set forest with a place for those that must stay."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FIXED = 0
"""The label of everything that may not be removed."""


class Labels:
    """Numbers that stand for removable channels. Those that were joined can only be removed together."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)
        self._why: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Tensor:
        """``count`` new labels, int64."""
        first = len(self._parent)
        self._parent = np.concatenate([self._parent, np.arange(first, first + count)])
        return torch.arange(first, first + count)

    def roots(self, labels: Tensor) -> Tensor:
        """The label that stands for each one's set, same shape."""
        while not np.array_equal(parent := self._parent[self._parent], self._parent):
            self._parent = parent
        return torch.from_numpy(self._parent)[labels]

    def join(self, a: Tensor, b: Tensor, why: str) -> None:
        """Make each label of ``a`` one with that of ``b`` at its place; ``why`` is the operation."""
        self._join(a, b, f"{why} ties it to what stays")

    def _join(self, a: Tensor, b: Tensor, why: str) -> None:
        first, second = self.roots(a).reshape(-1), self.roots(b).reshape(-1)
        free = self._parent != FIXED  # roots has made every label's parent its root
        pairs = torch.unique(first * len(self) + second)
        for x, y in zip((pairs // len(self)).tolist(), (pairs % len(self)).tolist(), strict=True):
            low, high = sorted((self._root(x), self._root(y)))
            self._parent[high] = low  # the lowest stands for all, so the fixed ones stay fixed
        if bool((pairs // len(self) == FIXED).any() or (pairs % len(self) == FIXED).any()):
            stays = self.roots(torch.arange(len(self))).numpy() == FIXED
            self._why.update(dict.fromkeys(np.flatnonzero(free & stays).tolist(), why))

    def fix(self, labels: Tensor, why: str) -> None:
        """These channels stay; ``why`` in a few words."""
        found = torch.unique(labels)
        self._join(found, torch.full_like(found, FIXED), why)

    def why(self, label: int) -> str:
        """Why a channel stays."""
        return self._why.get(label, "it is the network's own input")

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            label = int(self._parent[label])
        return label


def varying(labels: Tensor) -> list[int]:
    """Axes along which labels differ."""
    return [a for a in range(labels.dim()) if bool((labels != labels.narrow(a, 0, 1)).any())] if labels.numel() else []
