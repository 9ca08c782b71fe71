"""How a layer is cut so that its parts fit the memory next to the array, for the fewest bits from the outer one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import prod

import numpy as np
from numpy.typing import NDArray

from fewbits.hardware.layers import Layer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Widths:
    """Bits of a number: of a weight in either memory, of an input or output, and of a sum that is not done."""

    outer_weight: float
    inner_weight: float
    input: int
    partial: int


@dataclass(frozen=True)
class Traffic:
    """Bits between the outer memory and the inner one, for one call of a layer.

    Attributes:
        weights, inputs: read. outputs: written. partial_reads, partial_writes: sums that are not done.
        tile: output channels, input channels and output rows of a part. order: its loops, from the outermost.
        needed: bits of the inner memory.
    """

    weights: float
    inputs: float
    outputs: float
    partial_reads: float
    partial_writes: float
    tile: tuple[int, int, int]
    order: str
    needed: float

    @property
    def reads(self) -> float:
        """Bits from the outer memory."""
        return self.weights + self.inputs + self.partial_reads

    @property
    def writes(self) -> float:
        """Bits to the outer memory."""
        return self.outputs + self.partial_writes


def tiled(layer: Layer, widths: Widths, room: float) -> Traffic | None:
    """The cut with the least traffic, by search; ``None`` where not even the smallest part fits.

    Loops go over output channels (m), input channels (c) and output rows (p) of a group; what a loop does not change
    stays in the inner memory. So an operand is read once for each turn of the loops from the outermost to the innermost
    that changes it. Parts have a power of two, or all, of each; neighbouring rows of inputs are read again.

    Args:
        room: bits of the inner memory. A weight that takes none there passes it by.
    """
    m, c, p = np.meshgrid(*map(_sizes, _whole(layer)), indexing="ij")
    m, c, p = (axis.ravel() for axis in (m, c, p))
    parts = _parts(layer, m, c, p, widths)
    needed = parts.weights * widths.inner_weight + parts.inputs * widths.input + parts.outputs * widths.partial
    fits = np.flatnonzero(needed <= room)
    if not len(fits):
        return None
    best: Traffic | None = None
    for order in permutations("mcp"):
        found = _traffic(layer, order, m, c, p, widths)
        total: Array = np.sum(found, axis=0)
        at = fits[np.argmin(total[fits])]
        if best is None or total[at] < best.reads + best.writes:
            tile = (int(m[at]), int(c[at]), int(p[at]))
            weights, inputs, outputs, back, forth = (float(part[at]) for part in found)
            best = Traffic(weights, inputs, outputs, back, forth, tile, "".join(order), float(needed[at]))
    return best


def smallest(layer: Layer, widths: Widths) -> float:
    """Bits of the inner memory that the smallest part needs: one channel of each kind, and one row."""
    one = np.ones(1)
    part = _parts(layer, one, one, one, widths)
    bits = part.weights * widths.inner_weight + part.inputs * widths.input + part.outputs * widths.partial
    return float(bits[0])


def _whole(layer: Layer) -> tuple[int, int, int]:
    return layer.outputs // layer.groups, layer.inputs // layer.groups, layer.size_out[0]


def _sizes(whole: int) -> list[int]:
    return sorted({min(2**power, whole) for power in range(whole.bit_length() + 1)})


@dataclass(frozen=True)
class _Part:
    weights: Array
    inputs: Array
    outputs: Array


def _rows(layer: Layer, rows: Array) -> Array:
    """Rows of inputs that so many rows of outputs need."""
    if not layer.kernel:
        return rows
    reach = (rows - 1) * layer.stride[0] + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    return np.where(rows >= layer.size_out[0], layer.size_in[0], np.minimum(reach, layer.size_in[0]))


def _parts(layer: Layer, m: Array, c: Array, p: Array, widths: Widths) -> _Part:
    inputs = c * _rows(layer, p) * prod(layer.size_in[1:])
    return _Part(m * c * prod(layer.kernel), inputs, m * p * prod(layer.size_out[1:]))


def _traffic(layer: Layer, order: tuple[str, ...], m: Array, c: Array, p: Array, widths: Widths) -> list[Array]:
    whole = dict(zip("mcp", _whole(layer), strict=True))
    tile = {"m": m, "c": c, "p": p}
    turns = {loop: np.ceil(whole[loop] / tile[loop]) for loop in "mcp"}

    def visits(changes: str) -> Array:
        """How often the operand that these loops change is fetched, in parts."""
        times = np.ones_like(m, dtype=float)
        count = np.ones_like(times)
        for loop in order:
            count = count * turns[loop]
            if loop in changes:
                times = np.where(turns[loop] > 1, count, times)
        return times

    groups = layer.groups
    numbers = whole["m"] * whole["c"] * prod(layer.kernel) * groups
    fetches = visits("mc") / (turns["m"] * turns["c"]) if widths.inner_weight else turns["p"]
    weights = numbers * fetches * widths.outer_weight
    # Rows overlap, so all parts together have more of them than the input; the last part is smaller.
    full, rest = whole["p"] // p, whole["p"] % p
    rows = np.where(
        turns["p"] > 1, np.minimum(full * _rows(layer, p) + np.where(rest > 0, _rows(layer, np.maximum(rest, 1)), 0),
                                   turns["p"] * layer.size_in[0]), layer.size_in[0])  # fmt: skip
    across = prod(layer.size_in[1:]) * whole["c"] * groups
    inputs = across * rows * visits("cp") / (turns["c"] * turns["p"]) * widths.input
    outputs = float(layer.output_numbers)
    again = outputs * (visits("mp") / (turns["m"] * turns["p"]) - 1)
    done = np.full_like(inputs, outputs * widths.input)
    return [weights, inputs, done, again * widths.partial, again * widths.partial]
