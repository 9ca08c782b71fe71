"""The first samples of a batch on their own, which cost less than all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from fewbits.measure.relevance._rules import stabilise
from fewbits.measure.relevance._tape import Tape


def first_samples(
    tape: Tape, start: Tensor, outputs: Tensor, count: int, answer: Callable[[Any], Tensor] = lambda returned: returned
) -> tuple[Tensor, Tensor]:
    """The beginning of relevance, and the outputs with their graph, of the first ``count`` samples alone.

    They go through the network again, in its mode, with the statistics that batch normalisation took of the whole
    batch. Random numbers are drawn anew, and the generator is left as it was. The tape has watched this pass then.

    Args:
        tape: glanced at the pass of the whole batch, or watched it. start, outputs: relevance of its outputs, and
            these themselves. answer: the outputs, out of what the network returns.
    """
    args, kwargs = tape.arguments
    few = tree_map_only(Tensor, lambda x: x[:count] if x.dim() and len(x) == len(outputs) else x, (args, kwargs))
    devices = [outputs.device] if outputs.is_cuda else []
    with torch.random.fork_rng(devices), _statistics_of(tape), tape.watch():
        again = answer(tape.model(*few[0], **few[1]))
    start = start[:count] * again.detach() / stabilise(outputs.detach()[:count].to(again.dtype), 1e-12)
    return start, again


@contextmanager
def _statistics_of(tape: Tape) -> Iterator[None]:
    """Batch normalisation in training takes the statistics of the last pass, and leaves its running ones alone."""
    kept: list[tuple[_BatchNorm, Any, Any]] = []
    taken = dict(tape.statistics)
    norms = [m for m in tape.model.modules() if isinstance(m, _BatchNorm) and m.training and m in taken]
    try:
        for module in norms:
            mean, r = taken[module]
            kept.append((module, module.running_mean, module.running_var))
            module.running_mean, module.running_var = mean, r.square().reciprocal().sub(module.eps)
            module.training = False
        yield
    finally:
        for module, mean, variance in kept:
            module.running_mean, module.running_var, module.training = mean, variance, True
