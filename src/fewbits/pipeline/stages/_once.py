"""One look at a network in action, where its graph does not tell enough."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.errors import DataError, UnsupportedError
from fewbits.graph.norm_pairs import across
from fewbits.pipeline.stages._work import Work
from fewbits.task import Fed, run
from fewbits.task.batches import described
from fewbits.task.stream import NoBatches


def once_of(work: Work) -> Callable[[nn.Module], None] | None:
    """A function that runs a network on the first batch of the training data; ``None`` without data, as in a loop of
    one's own."""
    train = work.train
    if train is None or isinstance(train.loader if isinstance(train, Fed) else train, NoBatches):
        return None

    def forward(model: nn.Module) -> None:
        with torch.random.fork_rng():  # loaders draw seeds when they begin
            inputs = next(iter(train))[0]
        run(model, send_to_device(inputs, next(model.parameters()).device))

    return forward


def sample_shape(work: Work) -> tuple[int, ...]:
    """Of one sample of the training data, without the batch.

    Raises:
        DataError: there is no data, or its samples are no tensor.
    """
    train = work.train
    if train is None or isinstance(train.loader if isinstance(train, Fed) else train, NoBatches):
        raise DataError(
            "prune: diagonals follow from the shape of a sample, and there is no training data: give some batches"
        )
    with torch.random.fork_rng():
        inputs = next(iter(train))[0]
    if not isinstance(inputs, Tensor):
        raise DataError(
            f"prune: diagonals are of networks that take one tensor, and this one takes {described(inputs)}"
        )
    return tuple(inputs.shape[1:])


def check_folding(work: Work) -> None:
    """Refuse integers where a normalisation would be folded into a layer whose channels are other ones.

    Raises:
        UnsupportedError: with both names.
    """
    forward = once_of(work)
    try:
        found = {} if forward is None else across(work.model, forward)
    except UnsupportedError:  # it cannot be traced, so nothing is folded by its graph
        return
    for norm, layer in found.items():
        raise UnsupportedError(
            f"{norm} normalises over the second of three dimensions, and {layer} before it has its channels last: "
            "integers would fold them into one; transpose before it, or use assign.method ecq"
        )
