"""What the layers of a network ask of a GPU, asked for all of them at once.

A step of the assignment needs a few numbers from every layer (extremes, counts) before it can go on. Fetched one by
one, each makes the host wait for the device and the device for the host: five times per layer and training step.
A layer's assignment is therefore a generator: it yields tensors on the device and is sent their values.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")

Values = NDArray[np.float64]
"""Flat values of a tensor: exact for float32, and for whole numbers up to 2**53."""

Query = Generator[Tensor, Values, T]
"""Yields tensors, is sent the values of each, and returns a T."""


def run_alone(job: Query[T]) -> T:
    """The result of one job: each of its questions is answered at once."""
    return _answered([job])[0]


def run_batched(jobs: Sequence[Query[T]], devices: Iterable[torch.device]) -> list[T]:
    """The results of all jobs: on one GPU in step, one transfer for what all of them ask; else one after the other."""
    places = set(devices)
    if len(places) != 1 or places.pop().type != "cuda":
        return [run_alone(job) for job in jobs]
    return _answered(jobs)


def _answered(jobs: Sequence[Query[T]]) -> list[T]:
    results: dict[int, T] = {}
    asked: dict[int, Tensor] = {}
    answers: dict[int, Values] = {}
    while len(results) < len(jobs):
        for index, job in enumerate(jobs):
            if index in results:
                continue
            try:
                asked[index] = job.send(answers[index]) if index in answers else next(job)
            except StopIteration as end:
                results[index] = end.value
        answers, asked = _fetched(asked), {}
    return [results[index] for index in range(len(jobs))]


def _fetched(asked: dict[int, Tensor]) -> dict[int, Values]:
    flat = [t.reshape(-1) for t in asked.values()]
    if len(flat) > 1:
        whole = torch.cat([t.double() for t in flat]).cpu()
        flat = list(whole.split([t.numel() for t in flat]))
    return dict(zip(asked, (t.cpu().numpy().astype(np.float64) for t in flat), strict=True))
