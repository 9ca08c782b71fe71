"""A loader without a length, of which a number of batches is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fewbits.errors import DataError, RecipeError


class Stream:
    """So many batches of a loader, such as one of an ``IterableDataset``; it begins anew where it ends before.

    Args:
        loader: yields batches each time that it is iterated over. steps: batches of one pass.

    Raises:
        RecipeError: steps is no whole number of at least 1. While iterating, DataError: the loader yields nothing.
    """

    def __init__(self, loader: Iterable[Any], steps: int) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise RecipeError(f"steps is a whole number of at least 1, got {steps!r}")
        self.loader, self.steps = loader, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        left = self.steps
        while left:
            before = left
            for batch in self.loader:
                yield batch
                left -= 1
                if not left:
                    return
            if left == before:
                raise DataError(f"the training data is empty: {type(self.loader).__name__} yields no batch")

    def over(self, loader: Iterable[Any]) -> Stream:
        """As many batches of another loader."""
        return Stream(loader, self.steps)
