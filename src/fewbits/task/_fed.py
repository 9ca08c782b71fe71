"""Batches of any loader as every room knows them, each one checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import DataError, FewbitsError, NonFiniteError, RecipeError
from fewbits.task.batches import Batch, described, samples_in, tensors_in
from fewbits.task.feed import Feed, Given


class Fed:
    """Batches of any loader as every room knows them, each one checked.

    Args:
        loader: a list of batches, a ``DataLoader``, or anything that yields batches again and again.
        feed: how they are split.
        what: their name in errors, such as ``"the training data"``. empty: whether batches without samples are passed
            over; else they are errors.

    Attributes:
        place: where the last batch stands, for errors: ``"batch 3 of the training data"``.
    """

    def __init__(self, loader: Iterable[Any], feed: Feed, what: str, *, empty: bool = False) -> None:
        self.loader, self.feed, self.what, self.place = loader, feed, what, what
        self.empty = empty

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._read(), 1):
            self.place = f"batch {number} of {self.what}"
            found = self.checked(batch)
            if not self.empty or samples_in(found.inputs):
                yield found

    def _read(self) -> Iterator[Any]:
        """The loader's batches; what goes wrong in it is told with how many there were before.

        Raises:
            DataError: from the loader's own error. Errors of fewbits, and a lack of memory, pass.
        """
        count = 0
        try:
            for batch in self.loader:
                yield batch
                count += 1
        except (FewbitsError, torch.OutOfMemoryError, GeneratorExit):
            raise
        except Exception as error:
            raise DataError(
                f"{self.what}: its loader fails after {count} batches with {_error(error)}; iterate over it alone to "
                "see where"
            ) from error

    def over(self, loader: Iterable[Any]) -> Fed:
        """The same for other batches of the same kind."""
        return Fed(loader, self.feed, self.what, empty=self.empty)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Around what looks at the last batch: its errors name the batch."""
        try:
            yield
        except (DataError, NonFiniteError) as error:
            raise type(error)(f"{self.place}: {error}") from error.__cause__

    def checked(self, batch: Any) -> Batch:
        """A batch split and looked at.

        Raises:
            DataError: it does not fit, it is empty, or it holds NaN.
        """
        with self.naming():
            found = self.feed(batch)
        for word, part in (("inputs", found.inputs), ("targets", found.targets)):
            for tensor in tensors_in(part):
                if tensor.is_meta:
                    raise DataError(f"{self.place}: its {word} are on the meta device, so there are no numbers in them")
                if word == "inputs" and not tensor.numel() and not self.empty:
                    raise DataError(
                        f"{self.place} is empty: its inputs have shape {list(tensor.shape)}; leave such batches out"
                    )
                if tensor.is_floating_point() and bool(tensor.isnan().any()):
                    raise DataError(
                        f"{self.place}: {int(tensor.isnan().sum())} of its {word} are NaN; mend the data, or "
                        "leave such samples out"
                    )
        return found


def _error(error: Exception) -> str:
    """An error in a line; of one from a worker process, whose whole traceback is its text, the last one."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and any("Traceback" in line for line in lines):
        return lines[-1].strip()[:300]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def measured_over(model: nn.Module, batches: Iterable[Any]) -> Fed:
    """Batches to measure on: read once, and those without samples are passed over."""
    return batches if isinstance(batches, Fed) else Fed(batches, Feed(model), "the data", empty=True)


def fed(
    model: nn.Module,
    batches: Iterable[Any],
    what: str = "the training data",
    *,
    inputs: Given = None,
    targets: Given = None,
) -> Fed:
    """Batches to train or to evaluate with, which are read again and again; those that are fed already stay.

    Raises:
        DataError: what is given holds no batches, or can be read only once.
    """
    if isinstance(batches, Fed):
        return batches
    if isinstance(batches, Iterator):
        raise DataError(
            f"{what}: a {type(batches).__name__} is read only once and has no length; give a DataLoader or a list of "
            "batches"
        )
    if isinstance(batches, str | bytes | Tensor | Mapping) or not isinstance(batches, Iterable):
        raise DataError(f"{what}: {described(batches)} holds no batches; give a DataLoader or a list of batches")
    if inputs is not None and inputs == targets and not callable(inputs):
        raise RecipeError(f"inputs and targets are both {inputs!r}")
    return Fed(batches, Feed(model, inputs, targets), what)
