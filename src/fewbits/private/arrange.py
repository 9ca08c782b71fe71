"""Which layout each value gets: the choice with the least predicted time for the whole program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fewbits.errors import UnsupportedError
from fewbits.hardware.packing import Layout, Split, Spread, covering, diagonals, grouped, split
from fewbits.hardware.packing.costs import layer_cost
from fewbits.private.read import INPUT

BEAM = 6


@dataclass(frozen=True, eq=False)
class Map:
    """An affine map that has to be laid out.

    Attributes:
        target: the value's name. where: the layer it is of, in words. matrices: by source, float64 [outputs, inputs].
        bias: float64 [outputs]. last: whether its result is the answer. primes, after: left at products and at folds.
        like: the target whose spread it must have.
    """

    target: str
    where: str
    matrices: Mapping[str, np.ndarray]
    bias: np.ndarray
    primes: int
    after: int
    last: bool = False
    like: str | None = None


@dataclass(frozen=True, eq=False)
class Laid:
    """A map in slots: by source its shifts (those without weights left out), and their split."""

    map: Map
    spread: Spread
    shifts: Mapping[str, np.ndarray]
    splits: Mapping[str, Split]
    cost: float


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Layouts of all values, by name, and the maps between them. ``cost``: predicted milliseconds of the maps."""

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    maps: tuple[Laid, ...] = ()
    cost: float = 0.0


def arranged(steps: tuple[Map | tuple[str, str], ...], slots: int) -> Arrangement:
    """The cheapest arrangement that a beam search finds.

    Args:
        steps: maps, and pairs of a value and another whose layout it has, in order of computation.
        slots: of a ciphertext.

    Raises:
        UnsupportedError: a layer does not fit the slots.
    """
    beam = [Arrangement()]
    for step in steps:
        found: list[Arrangement] = []
        for state in beam:
            if isinstance(step, tuple):
                layouts = {**state.layouts, step[0]: state.layouts[step[1]]}
                found.append(Arrangement(layouts, state.maps, state.cost))
            else:
                found += _extended(state, step, slots)
        if not found:
            assert isinstance(step, Map)
            numbers = max(len(step.bias), *(matrix.shape[1] for matrix in step.matrices.values()))
            raise UnsupportedError(f"{step.where}: its {numbers} numbers do not fit a ciphertext of {slots} slots")
        beam = _best(found)
    return beam[0]


def _best(found: list[Arrangement]) -> list[Arrangement]:
    """The cheapest ones, one for each layout of the last value."""
    kept: dict[bytes, Arrangement] = {}
    for state in sorted(found, key=lambda state: state.cost):
        last = list(state.layouts.values())[-1]
        kept.setdefault(last.key(), state)
    return list(kept.values())[:BEAM]


def _extended(state: Arrangement, step: Map, slots: int) -> list[Arrangement]:
    found = []
    for spread in _spreads(state, step, slots):
        for layouts in _sources(state, step, spread, slots):
            known = {**state.layouts, **layouts}
            laid = _laid(step, spread, known)
            if laid is not None:
                known[step.target] = spread.layout()
                found.append(Arrangement(known, (*state.maps, laid), state.cost + laid.cost))
    return found


def _spreads(state: Arrangement, step: Map, slots: int) -> list[Spread]:
    if step.like is not None:
        return [laid.spread for laid in state.maps if laid.map.target == step.like]
    outputs = len(step.bias)
    rows = 1 << (outputs - 1).bit_length()
    found = []
    stride = 1
    while rows * stride <= slots:
        inner = stride
        while inner >= 1:
            if not step.last or (inner == stride and (rows > outputs or stride > 1)):  # a free slot, no partial sums
                found.append(Spread(slots, outputs, rows, stride, inner))
            inner //= 2
        stride *= 2
    if step.last and rows == outputs and 2 * rows <= slots:
        found.append(Spread(slots, outputs, 2 * rows, 1, 1))
    return found


def _sources(state: Arrangement, step: Map, spread: Spread, slots: int) -> list[dict[str, Layout]]:
    if INPUT in state.layouts or INPUT not in step.matrices:
        return [{}] if set(step.matrices) <= set(state.layouts) else []
    size = step.matrices[INPUT].shape[1]
    block = spread.rows * spread.stride
    found = []
    if size <= slots and -(-size // (slots // block)) <= block and spread.inner == spread.stride == 1:
        found.append({INPUT: grouped(size, block, slots)})
    return found


_covers: dict[tuple[bytes, Spread], np.ndarray | None] = {}


def _covering(layout: Layout, spread: Spread) -> np.ndarray | None:
    key = layout.key(), spread
    if key not in _covers:
        if len(_covers) > 4096:
            _covers.clear()
        _covers[key] = covering(layout, spread)
    return _covers[key]


def _laid(step: Map, spread: Spread, given: Mapping[str, Layout]) -> Laid | None:
    shifts, splits, cost = {}, {}, 0.0
    for name, matrix in step.matrices.items():
        found = _covering(given[name], spread)
        if found is None:
            return None
        which, _ = diagonals(given[name], spread, found)
        used = np.zeros(len(found), bool)
        used[which[matrix != 0]] = True
        shifts[name] = found[used]
        splits[name] = split(shifts[name], spread.slots)
        cost += layer_cost(splits[name], 0, step.primes, step.after)
    cost += layer_cost(Split(()), len(spread.folds), step.primes, step.after)
    return Laid(step, spread, shifts, splits, cost)
