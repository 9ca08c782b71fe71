"""The same operations in torch, and a record of them: what :mod:`fewbits.int8.alone.kernels` computes, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fewbits.ops._evaluate import Evaluator

FACTOR = 30  # bits of the largest factor of a rescaling
MOST_SHIFT = 46
REACH = 2**61  # of an offset: two products of 31 and 30 bits, and it, stay within 64
SUMS = 2**31  # of accumulators


@dataclass(frozen=True)
class Levels:
    """Integers on their way through a network.

    Attributes:
        numbers: int64. place: of the value in the record, -1 without one.
    """

    numbers: Tensor
    place: int = -1


@dataclass(frozen=True)
class Step:
    """One operation of a record: its kernel, the places of its operands, and its constants."""

    kernel: str
    operands: tuple[int, ...]
    constants: dict[str, Any]


class Tape:
    """Computes in torch's int64; sums of products in float64, which holds them exactly.

    Args:
        steps: where operations are noted, if they are to be.
    """

    def __init__(self, steps: list[Step] | None = None) -> None:
        self.steps = steps
        self.grids: dict[int, tuple[str, float, int]] = {}
        self.shape: tuple[int, ...] = ()
        self.output: int | None = None

    def given(self, numbers: Tensor) -> Levels:
        """An input."""
        self.shape = tuple(numbers.shape)
        return self._noted(numbers, "input", (), {})

    def constant(self, numbers: Tensor) -> Levels:
        """A value that is the same for all samples."""
        return self._noted(numbers, "constant", (), {"numbers": numbers})

    def named(self, levels: Levels, name: str, scale: float, zero: int) -> None:
        """What the levels of a place stand for."""
        if self.steps is not None:
            self.grids[levels.place] = name, scale, zero

    def rescale(
        self, values: list[Levels], factors: list[Tensor], offset: Tensor | int, shift: int, low: int, high: int
    ) -> Levels:
        """See :func:`fewbits.int8.alone.kernels.rescale`."""
        device = values[0].numbers.device
        own = [factor.to(device) for factor in factors]
        start = torch.as_tensor(offset, dtype=torch.int64, device=device)
        found = start + ((1 << shift) >> 1)
        for value, factor in zip(values, own, strict=True):
            found = found + value.numbers * factor
        constants = {"factors": own, "offset": start, "shift": shift, "low": low, "high": high, "dims": found.dim()}
        return self._noted((found >> shift).clamp(low, high), "rescale", values, constants)

    def lookup(self, ids: Levels, table: Tensor) -> Levels:
        """Rows of a table."""
        return self._noted(table[ids.numbers], "lookup", (ids,), {"table": table})

    def matmul(self, a: Levels, b: Levels | Tensor) -> Levels:
        """The second one may be a constant."""
        constant = isinstance(b, Tensor)
        other = b if isinstance(b, Tensor) else b.numbers
        found = torch.matmul(a.numbers.double(), other.double()).to(torch.int64)
        constants = {"weight": other} if constant else {}
        return self._noted(
            found, "matmul", (a,) if isinstance(b, Tensor) else (a, b), constants | {"dims": found.dim()}
        )

    def product(self, a: Levels, b: Levels) -> Levels:
        """Element by element."""
        found = a.numbers * b.numbers
        return self._noted(found, "product", (a, b), {"dims": found.dim()})

    def total(self, a: Levels, axes: tuple[int, ...], *, keep: bool) -> Levels:
        """Sums over dimensions, which are counted from behind."""
        return self._noted(a.numbers.sum(axes, keepdim=keep), "total", (a,), {"axes": axes, "keep": keep})

    def take(self, values: list[Levels], move: Callable[..., Any]) -> list[Levels]:
        """What a function gives that only moves elements; zeros that it adds are no element."""
        found = move(*(value.numbers for value in values))
        several = found if isinstance(found, tuple | list) else [found]
        if self.steps is None:
            return [Levels(one) for one in several]
        start, places = 1, []
        for value in values:
            count = value.numbers.numel()
            places.append(torch.arange(start, start + count, device=value.numbers.device).view(value.numbers.shape))
            start += count
        moved = move(*places)
        made = []
        for numbers, at in zip(several, moved if isinstance(moved, tuple | list) else [moved], strict=True):
            same = len(values) == 1 and torch.equal(at.reshape(-1), places[0].reshape(-1))
            constants = {"indices": None if same else at - 1, "shape": tuple(numbers.shape)}
            made.append(self._noted(numbers, "take", values, constants))
        return made

    def clip(self, a: Levels, low: int, high: int) -> Levels:
        """ReLU and the like."""
        return self._noted(a.numbers.clamp(low, high), "clip", (a,), {"low": low, "high": high})

    def fill(self, a: Levels, mask: Tensor, value: int) -> Levels:
        """A constant where a mask is true."""
        found = torch.where(mask, value, a.numbers)
        return self._noted(found, "fill", (a,), {"mask": mask, "value": value, "dims": found.dim()})

    def approximate(self, a: Levels, evaluator: Evaluator, epsilon: int = 0) -> Levels:
        """By integers, with rows along the last dimension."""
        constants = {"approximation": evaluator.approximation, "epsilon": epsilon}
        return self._noted(evaluator.levels(a.numbers, epsilon=epsilon), "approximate", (a,), constants)

    def windows(self, a: Levels, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Levels:
        """Windows of images ``[n, c, h, w]`` as rows ``[n, places, c * kernel height * kernel width]``."""

        def move(x: Tensor) -> Tensor:  # float64 holds indices
            return functional.unfold(x.double(), kernel, dilation, padding, stride).to(torch.int64).transpose(1, 2)

        return self.take([a], move)[0]

    def _noted(self, numbers: Tensor, kernel: str, operands: Any, constants: dict[str, Any]) -> Levels:
        if self.steps is None:
            return Levels(numbers)
        self.steps.append(Step(kernel, tuple(o.place for o in operands), {n: _array(c) for n, c in constants.items()}))
        return Levels(numbers, len(self.steps) - 1)


def _array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return np.array(value.detach().cpu().numpy())
    return [_array(part) for part in value] if isinstance(value, list) else value


def factors(reals: list[Tensor], offset: Tensor | None = None) -> tuple[list[Tensor], Tensor | int, int]:
    """Real factors and an offset as integers in units of ``2**-shift``; the largest factor has 30 bits.

    Args:
        reals: float64 on the CPU. offset: float64, in levels of the result.

    Returns:
        Factors, offset and shift for :meth:`Tape.rescale`.
    """
    largest = max(float(real.abs().max()) for real in reals)
    shift = int(np.clip(FACTOR - np.frexp(largest)[1], 0, MOST_SHIFT)) if largest else 0
    most = 2.0**FACTOR  # reached by what was zero on all calibration data
    whole = [(real * 2.0**shift).round().clamp(-most, most).to(torch.int64) for real in reals]
    if offset is None:
        return whole, 0, shift
    return whole, (offset * 2.0**shift).round().clamp(-REACH, REACH).to(torch.int64), shift
