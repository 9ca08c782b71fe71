"""What goes into each batch normalisation of a network, in running sums: two numbers per channel, no activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.task import run
from fewbits.task.batches import input_of
from fewbits.weights import NORMS

ROUNDING = 1e-10  # of a squared mean: a variance below it is the rounding of a constant


@dataclass(frozen=True, eq=False)
class ChannelMoments:
    """Of so many numbers per channel.

    Attributes:
        count: how many. mean, scatter: float64 [channels]; scatter is the sum of squared distances from the mean.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @property
    def variance(self) -> Tensor:
        return self.scatter / self.count

    @property
    def varies(self) -> Tensor:
        """Bool [channels]: which are finite, and no constant."""
        return torch.isfinite(self.variance) & (self.variance > ROUNDING * self.mean.square())

    def and_then(self, other: ChannelMoments) -> ChannelMoments:
        """Of both (Chan, Golub and LeVeque 1983)."""
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        scatter = self.scatter + other.scatter + apart.square() * (self.count * other.count / count)
        return ChannelMoments(count, mean, scatter)

    def of(self, mask: Tensor | None) -> ChannelMoments:
        """Of some channels."""
        return self if mask is None else ChannelMoments(self.count, self.mean[mask], self.scatter[mask])


@torch.no_grad()
def moments_of(x: Tensor) -> ChannelMoments:
    """Of ``x`` [N, channels, ...], which is not empty."""
    others = [dim for dim in range(x.dim()) if dim != 1]
    variance, mean = torch.var_mean(x.detach().float(), others, correction=0)
    count = x.numel() // x.shape[1]
    return ChannelMoments(count, mean.double(), variance.double() * count)


def norms_of(model: nn.Module) -> dict[str, Any]:
    """``{path: batch normalisation with running statistics}``; one that is there twice goes by its first path."""
    return {path: m for path, m in model.named_modules() if isinstance(m, NORMS) and m.running_mean is not None}


class FloatStatistics:
    """The statistics that a network's normalisations keep, and those of what really goes into them.

    The network runs in evaluation mode, as it will be used. It is asked for each batch once, however many other
    networks are then compared with it, and no longer needed when all batches were seen.

    Attributes:
        kept: ``{path: (running mean, running variance)}``, copies.
        seen: ``{path: moments after each call of the normalisation}``, over all batches so far.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        norms = norms_of(network)
        self.kept = {path: (m.running_mean.clone(), m.running_var.clone()) for path, m in norms.items()}
        self.seen: dict[str, list[ChannelMoments]] = {path: [] for path in norms}
        self._batches = 0

    def see(self, number: int, inputs: Any) -> None:
        """Take the statistics of batch ``number``, from 0, unless that was done."""
        if number < self._batches:
            return
        with watching(norms_of(self.network), self._note), evaluating(self.network):
            run(self.network, send_to_device(inputs, next(self.network.parameters()).device))
        self._batches += 1

    def _note(self, path: str, norm: nn.Module, x: Tensor) -> None:
        found, seen = moments_of(x), self.seen[path]
        seen.append(seen[-1].and_then(found) if seen else found)


def _noted(note: Any, path: str, norm: nn.Module, x: Tensor) -> None:
    if len(x):
        note(path, norm, x)


@contextmanager
def watching(norms: dict[str, Any], note: Any) -> Iterator[None]:
    """Call ``note(path, normalisation, its input)`` before each call of one of them with an input that is not empty."""
    handles = [
        norm.register_forward_pre_hook(
            lambda module, args, kwargs, path=path: _noted(note, path, module, input_of(args, kwargs)), with_kwargs=True
        )
        for path, norm in norms.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
