"""Loaders that are no lists: streams, of which a number of batches is taken, and what stands for none at all."""

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


def for_steps(loader: Any, steps: int) -> tuple[Any, float]:
    """Data for so many training steps, and how many epochs of it they are: of a stream, one.

    Raises:
        RecipeError: steps is no whole number of at least 1.
    """
    stream = Stream(loader, steps)
    try:
        return loader, steps / max(1, len(loader))
    except TypeError:
        return stream, 1.0


class NoBatches:
    """What stands for training data where none is given: whoever asks for a batch is told.

    Raises:
        DataError: while it is iterated over, or asked for its length.
    """

    def __len__(self) -> int:
        raise DataError("this recipe looks at batches, and no train= was given: give a DataLoader or a list of batches")

    def __iter__(self) -> Iterator[Any]:
        return iter(range(len(self)))
