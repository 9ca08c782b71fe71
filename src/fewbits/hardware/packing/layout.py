"""Which number lies in which slot, before and after a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewbits.errors import RecipeError

EMPTY = -1  # a slot that holds zero
JUNK = -2  # a slot that holds something nobody wants


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the numbers of an activation lie.

    Attributes:
        numbers: int [slots], which number lies in each slot, ``EMPTY`` or ``JUNK``. A number may lie in several.
        size: how many numbers there are.
    """

    numbers: np.ndarray
    size: int

    @property
    def slots(self) -> int:
        """Of the ciphertext."""
        return len(self.numbers)

    def first(self) -> np.ndarray:
        """The first slot of each number, int [size]."""
        found = np.full(self.size, -1)
        used = np.flatnonzero(self.numbers >= 0)[::-1]
        found[self.numbers[used]] = used
        return found

    @property
    def period(self) -> int:
        """The smallest power of two after which all slots repeat themselves."""
        period = self.slots
        while period > 1 and (self.numbers[: period // 2] == self.numbers[period // 2 : period]).all():
            period //= 2
        return period

    def key(self) -> bytes:
        """Equal for equal layouts."""
        return self.numbers.tobytes()


@dataclass(frozen=True)
class Spread:
    """Where partial sums of a layer's outputs lie before they are folded.

    Output o has partial sums at slots ``o * stride + i * inner`` below ``(o + 1) * stride``, in each repetition of
    ``rows * stride`` slots. Folds add them up: afterwards ``o * stride`` holds output o, in each repetition.

    Attributes:
        slots, outputs: of the ciphertext, and of the layer. rows: a power of two, at least ``outputs``.
        stride, inner: powers of two; ``inner`` equal to ``stride`` means one partial sum in each repetition.
        span: a power of two, the slots that partial sums are spread over; 0 for all. Where the input has this period,
            all further slots do the same, so that fewer folds are needed.
    """

    slots: int
    outputs: int
    rows: int
    stride: int
    inner: int
    span: int = 0

    def __post_init__(self) -> None:
        sizes = (self.slots, self.rows, self.stride, self.inner, self.reach)
        powers = all(n > 0 and n & (n - 1) == 0 for n in sizes)
        if (
            not powers
            or not self.rows * self.stride <= self.reach <= self.slots
            or self.inner > self.stride
            or self.outputs > self.rows
        ):
            raise RecipeError(f"{self} does not fit")

    @property
    def reach(self) -> int:
        """Slots that partial sums are spread over."""
        return self.span or self.slots

    @property
    def folds(self) -> tuple[int, ...]:
        """Rotations that are added, one after the other."""
        inner = _doubling(self.inner, self.stride)
        return (*inner, *_doubling(self.rows * self.stride, self.reach))

    @property
    def copies(self) -> int:
        """Partial sums of each output."""
        return self.stride // self.inner * (self.reach // (self.rows * self.stride))

    def partial(self) -> np.ndarray:
        """Whose partial sum lies in each slot, int [slots]; ``EMPTY`` where none does, and beyond the span."""
        slot = np.arange(self.slots)
        output = slot // self.stride % self.rows
        return np.where((slot % self.inner == 0) & (output < self.outputs) & (slot < self.reach), output, EMPTY)

    def layout(self) -> Layout:
        """What lies where after the folds."""
        slot = np.arange(self.slots)
        found = np.where(slot % self.stride == 0, slot // self.stride % self.rows, EMPTY)
        found = np.where(found < self.outputs, found, EMPTY)
        if self.inner < self.stride:
            found = np.where((slot % self.inner == 0) & (slot % self.stride != 0), JUNK, found)
        return Layout(found, self.outputs)


def _doubling(first: int, last: int) -> tuple[int, ...]:
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return tuple(found)


def grouped(size: int, block: int, slots: int) -> Layout:
    """Inputs in groups of ``slots / block``, one number of a group in each block, groups side by side and repeated.

    Any window of ``ceil(block / floor(block / groups))`` columns then has all groups: as many shifts give each slot of
    a block every input, spread over the blocks.

    Raises:
        RecipeError: they do not fit.
    """
    blocks = slots // block
    groups = -(-size // blocks)
    if groups > block:
        raise RecipeError(f"{size} numbers do not fit {slots} slots")
    rounds = block // groups
    group = np.full(block, -1)
    for one in range(rounds):
        start = -(-one * block // rounds)
        group[start : start + groups] = np.arange(groups)
    number = group[None, :] * blocks + np.arange(blocks)[:, None]
    number = np.where((group[None, :] >= 0) & (number < size), number, EMPTY)
    return Layout(number.ravel(), size)
