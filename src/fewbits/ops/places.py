"""Where a network computes which operation, on which numbers, and how far an approximation is off there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewbits.approximation import Approximation
from fewbits.ops._evaluate import Evaluator
from fewbits.ops._functions import FUNCTIONS
from fewbits.ops.swap import Mode, Seen
from fewbits.task import Inputs, run

FAMILIES = {"gelu": ("gelu", "gelu_tanh")}
"""Operations that are asked for by one name."""
MASK = 1e30  # a number of this size says that a place is masked
GONE = 104.0  # e to minus this is zero in float32
ROWS = ("softmax", "layer_norm", "rms_norm")


@dataclass
class Place:
    """A module whose forward pass calls an operation, itself or through a function.

    Attributes:
        path: of the module; empty for the network. operation: its name. calls: of it, in all batches.
        low, high: the smallest and the largest finite number that it was given.
        spread: of normalisations, the least deviation (root mean square) of a row. reach: the largest normalised
            number. row: the longest row.
        error: the largest error of an approximation there; a share of the exact value where ``relative`` is true.
    """

    path: str
    operation: str
    calls: int = 0
    low: float = math.inf
    high: float = -math.inf
    spread: float = math.inf
    reach: float = 0.0
    row: int = 1
    error: float = 0.0
    relative: bool = False


@contextmanager
def watched(model: nn.Module, seen: Any) -> Iterator[None]:
    """Tell ``seen(path, operation, input, options)`` of every operation that the network calls meanwhile."""
    inside = [""]
    with ExitStack() as stack:
        for path, module in model.named_modules():

            def begins(_: nn.Module, __: Any, path: str = path) -> None:
                inside.append(path)

            def ends(*_: Any) -> None:
                inside.pop()

            stack.callback(module.register_forward_pre_hook(begins).remove)
            stack.callback(module.register_forward_hook(ends, always_call=True).remove)
        told: Seen = lambda name, x, options: seen(inside[-1], name, x, options)  # noqa: E731
        stack.enter_context(Mode({}, told))
        yield


@torch.no_grad()
def places(model: nn.Module, inputs: Iterable[Any]) -> list[Place]:
    """The places of a network, and the ranges there, over some inputs; in the order of the first forward pass.

    Args:
        model: in evaluation mode, and not swapped yet. inputs: one tensor, or :class:`~fewbits.task.Inputs`, for each
            batch.
    """
    found: dict[tuple[str, str], Place] = {}

    def seen(path: str, name: str, x: Tensor, options: dict[str, Any]) -> None:
        place = found.setdefault((path, name), Place(path, name))
        place.calls += 1
        finite = x[torch.isfinite(x) if name != "softmax" else _heeded(x, options["dim"])]
        if not finite.numel():
            return
        place.low, place.high = min(place.low, float(finite.min())), max(place.high, float(finite.max()))
        if name == "softmax":
            place.row = max(place.row, x.shape[options["dim"]])
        elif name in ROWS:
            dims = tuple(range(-max(len(options["shape"]), 1), 0))
            moved = x.float() - x.float().mean(dims, keepdim=True) if name == "layer_norm" else x.float()
            deviation = (moved * moved).mean(dims, keepdim=True).sqrt()
            place.row = max(place.row, math.prod(x.shape[dim] for dim in dims))
            place.spread = min(place.spread, float(deviation.min()))
            place.reach = max(place.reach, float((moved / deviation.clamp(min=1e-12)).abs().max()))

    with watched(model, seen):
        for batch in inputs:
            _run(model, batch)
    return list(found.values())


def _heeded(x: Tensor, dim: int) -> Tensor:
    """Where a softmax has a share; masks are the least number of a type in some networks, and not infinity."""
    sound = torch.isfinite(x) & (x.abs() < MASK)
    highest = x.masked_fill(~sound, -torch.inf).amax(dim, keepdim=True)
    return sound & (highest - x < GONE)


@torch.no_grad()
def measure(
    model: nn.Module, inputs: Iterable[Any], known: list[Place], approximations: Mapping[str, Approximation]
) -> None:
    """Measure the errors of approximations at the places of :func:`places`, on the same inputs; noted there."""
    evaluators = {name: Evaluator(found) for name, found in approximations.items()}
    by_name = {(place.path, place.operation): place for place in known}

    def seen(path: str, name: str, x: Tensor, options: dict[str, Any]) -> None:
        place = by_name.get((path, name))
        if place is None or name not in evaluators:
            return
        plain = {key: value for key, value in options.items() if key not in ("weight", "bias")}
        x = x.float()
        off, exact = (evaluators[name](x, **plain) - _exact(name, x, plain)).abs(), _exact(name, x, plain).abs()
        place.relative = evaluators[name].approximation.relative
        if place.relative:
            # of a row of a normalisation its largest number counts: the mean is rounded, too
            off = off / (exact.amax(-1, keepdim=True) if name in ROWS else exact).clamp(min=1e-30)
        off = off[torch.isfinite(off)]
        place.error = max(place.error, float(off.max()) if off.numel() else 0.0)

    with watched(model, seen):
        for batch in inputs:
            _run(model, batch)


def _exact(name: str, x: Tensor, options: dict[str, Any]) -> Tensor:
    if name == "softmax":
        return torch.softmax(x, options["dim"])
    if name == "layer_norm":
        return functional.layer_norm(x, options["shape"], eps=options["eps"])
    if name == "rms_norm":
        return functional.rms_norm(x, options["shape"], eps=options["eps"])
    found: Tensor = FUNCTIONS[name].exact(x)
    return found


def _run(model: nn.Module, batch: Any) -> None:
    run(model, batch if isinstance(batch, Tensor | Inputs) else Inputs((batch,), {}))
