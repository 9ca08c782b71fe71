"""Which layout each value gets: the choice with the least predicted time for the whole program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

import numpy as np

from fewbits.errors import UnsupportedError
from fewbits.hardware.packing import (
    Grid,
    Layout,
    Placement,
    Split,
    Spread,
    covering,
    diagonals,
    folded_cells,
    greedy,
    grids,
    grouped,
    split,
    summed_cells,
)
from fewbits.hardware.packing.costs import layer_cost, least_cost
from fewbits.hardware.packing.shifts import fewest
from fewbits.private.read import INPUT

BEAM = 4
LOOKED = 24  # placements that are looked at for a map, the most promising first
NEAR, FEW = 3, 40  # so many shifts are always looked at
FEW_WEIGHTS = 0.25  # share of a matrix, below which it is a convolution's rather than a linear layer's
SLACK = 1.5  # layouts that cost more than the cheapest by this factor are not looked at


@dataclass(frozen=True, eq=False)
class Map:
    """An affine map that has to be laid out.

    Attributes:
        target: the value's name. where: the layer it is of, in words. matrices: by source, float64 [outputs, inputs].
        bias: float64 [outputs]. last: whether its result is the answer. primes, after: left at products and at folds.
        like: the target whose placement it must have.
        shape: of the result. shapes: of the sources, by name.
        halved: whether cells of 2 by 2 of its result, squared or not, are all that is read of it.
    """

    target: str
    where: str
    matrices: Mapping[str, np.ndarray]
    bias: np.ndarray
    primes: int
    after: int
    last: bool = False
    like: str | None = None
    shape: tuple[int, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    halved: bool = False

    @cached_property
    def local(self) -> bool:
        """Whether it makes an image, each pixel of few numbers: a spread would bring all of them to each."""
        few = all(np.count_nonzero(matrix) < FEW_WEIGHTS * matrix.size for matrix in self.matrices.values())
        return len(self.shape) == 3 and not self.last and few

    @cached_property
    def summed(self) -> dict[str, np.ndarray]:
        """By source that is read in sums of cells, the matrix of these sums."""
        found = {name: summed_cells(matrix, self.shapes.get(name, ())) for name, matrix in self.matrices.items()}
        return {name: matrix for name, matrix in found.items() if matrix is not None}


@dataclass(frozen=True, eq=False)
class Read:
    """A source as a map reads it: where its numbers lie after ``folds``, and the matrix of what lies there then."""

    layout: Layout
    matrix: np.ndarray
    folds: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Laid:
    """A map in slots: by source how it is read, its shifts (those without weights left out), and their split."""

    map: Map
    spread: Placement
    reads: Mapping[str, Read]
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
    for which in ("images", "spreads") if step.local else ("all",):
        found = _tried(state, step, slots, which)
        if found:
            return found
    return []


def _tried(state: Arrangement, step: Map, slots: int, which: str) -> list[Arrangement]:
    offered = [
        (placement, {**state.layouts, **layouts}) for placement, layouts in _placements(state, step, slots, which)
    ]
    least = [_least(step, placement, known) for placement, known in offered]
    order = sorted(range(len(offered)), key=least.__getitem__)
    for slack in (NEAR, slots):  # shifts, as a multiple of the fewest
        found = []
        best = inf
        for place in order[:LOOKED]:
            placement, known = offered[place]
            if least[place] > SLACK * best:
                break
            laid = _laid(step, placement, known, slack)
            if laid is not None:
                layouts = {**known, step.target: placement.layout()}
                found.append(Arrangement(layouts, (*state.maps, laid), state.cost + laid.cost))
                best = min(best, laid.cost)
        if found:
            return found
    return []


def _least(step: Map, placement: Placement, given: Mapping[str, Layout]) -> float:
    """No layout of these costs less: what is known before its shifts are."""
    cost = layer_cost(Split(()), len(placement.folds), step.primes, step.after)
    for name in step.matrices:
        if isinstance(placement, Spread) and name in given and name not in step.summed:
            shifts = fewest(given[name], placement)
            cost += least_cost(shifts, step.primes)
    return cost


def _placements(state: Arrangement, step: Map, slots: int, which: str) -> Iterator[tuple[Placement, dict[str, Layout]]]:
    """Where outputs may go, each with where the input lies, as long as that is open."""
    is_open = INPUT in step.matrices and INPUT not in state.layouts
    if step.like is not None:
        for laid in state.maps:
            if laid.map.target == step.like and not is_open:
                yield laid.spread, {}
        return
    if which != "spreads" and len(step.shape) == 3 and not step.last:
        yield from _images(state, step, slots, is_open)
    if which == "images":
        return
    periods = {state.layouts[name].period for name in step.matrices if name in state.layouts}
    for spread in _spreads(step, slots, slots if is_open else max(periods)):
        if not is_open:
            yield spread, {}
            continue
        size, block = step.matrices[INPUT].shape[1], spread.rows * spread.stride
        if size <= slots and -(-size // (slots // block)) <= block and spread.inner == spread.stride == 1:
            yield spread, {INPUT: grouped(size, block, slots)}


def _spreads(step: Map, slots: int, period: int) -> list[Spread]:
    """All spreads of a map's outputs, where every source repeats itself after ``period`` slots."""
    outputs = len(step.bias)
    least = 1 << (outputs - 1).bit_length()
    found = []
    for rows in (least, 2 * least) if step.last and least == outputs else (least,):
        stride = 1
        while rows * stride <= slots:
            inner = stride
            while inner >= 1:
                if not step.last or (
                    inner == stride and (rows > outputs or stride > 1)
                ):  # no partial sums, a free slot
                    found.append(Spread(slots, outputs, rows, stride, inner))
                    if rows * stride <= period < slots:
                        found.append(Spread(slots, outputs, rows, stride, inner, period))
                inner //= 2
            stride *= 2
    return found


def _images(
    state: Arrangement, step: Map, slots: int, is_open: bool
) -> Iterator[tuple[Placement, dict[str, Layout]]]:  # fmt: skip
    channels, height, width = step.shape
    if is_open:
        if len(step.shapes[INPUT]) != 3:
            return
        planes, high, wide = step.shapes[INPUT]
        for row in sorted({wide, 1 << (wide - 1).bit_length()}):
            block = 1 << (high * row - 1).bit_length()
            for given in grids((planes, high, wide), slots, block, row, 1)[-1:]:  # the repeated one, if there is one
                for spacing in (1, 2):
                    for one in grids((channels, height, width), slots, block, row, spacing):
                        yield one, {INPUT: given.layout()}
        if step.halved and high % 2 == wide % 2 == 0:
            yield from _in_cells(step, slots, planes, high, wide)
        return
    known = [laid.spread for laid in state.maps if isinstance(laid.spread, Grid)]
    for block, row, spacing in {(grid.block, grid.row, grid.spacing) for grid in known[-1:]}:
        for coarser in (1, 2):
            for one in grids((channels, height, width), slots, block, row, spacing * coarser):
                yield one, {}


def _in_cells(
    step: Map, slots: int, planes: int, high: int, wide: int
) -> Iterator[tuple[Placement, dict[str, Layout]]]:  # fmt: skip
    """Where cells may lie in regions, of the input and of the result alike."""
    channels, height, width = step.shape
    for row in sorted({wide // 2, 1 << (wide // 2 - 1).bit_length()}):
        block = 1 << (high // 2 * row - 1).bit_length()
        for given in grids((planes, high, wide), slots, block, row, 1, 2)[-1:]:
            for one in grids((channels, height, width), slots, block, row, 1, 2):
                yield one, {INPUT: given.layout()}


_covers: dict[tuple[bytes, Spread, int], np.ndarray | None] = {}


def _covering(layout: Layout, spread: Spread, slack: int) -> np.ndarray | None:
    key = layout.key(), spread, slack
    if key not in _covers:
        if len(_covers) > 4096:
            _covers.clear()
        _covers[key] = covering(layout, spread, max(slack * fewest(layout, spread), FEW))
    return _covers[key]


def _laid(step: Map, placement: Placement, given: Mapping[str, Layout], slack: int) -> Laid | None:
    reads, shifts, splits, cost = {}, {}, {}, 0.0
    for name in step.matrices:
        if name not in given:
            return None
        best: tuple[float, Read, np.ndarray, Split] | None = None
        for one in _reads(step, name, given[name]):
            found = _shifts(one, placement, slack)
            if found is None:
                continue
            bases = (placement.row, placement.row * placement.spacing) if isinstance(placement, Grid) else ()
            parts = split(found, placement.slots, bases)
            price = layer_cost(parts, 0, step.primes, step.after)
            price += layer_cost(Split(()), len(one.folds), step.primes, step.primes) if one.folds else 0.0
            if best is None or price < best[0]:
                best = price, one, found, parts
        if best is None:
            return None
        price, reads[name], shifts[name], splits[name] = best
        cost += price
    cost += layer_cost(Split(()), len(placement.folds), step.primes, step.after)
    return Laid(step, placement, reads, shifts, splits, cost)


def _reads(step: Map, name: str, layout: Layout) -> Iterator[Read]:
    """A source as it lies, and in sums of cells where two folds make them."""
    yield Read(layout, step.matrices[name])
    if name in step.summed:
        folded = folded_cells(layout, step.shapes[name])
        if folded is not None:
            yield Read(folded[0], step.summed[name], folded[1])


def _shifts(one: Read, placement: Placement, slack: int) -> np.ndarray | None:
    """Shifts that bring all pairs with weights together; ``None`` where there are none."""
    if isinstance(placement, Spread):
        found = _covering(one.layout, placement, slack)
    else:
        found = greedy(one.layout, placement.partial(), one.matrix != 0)
    if found is None:
        return None
    which, _ = diagonals(one.layout, placement, found)
    used = np.zeros(len(found), bool)
    used[which[one.matrix != 0]] = True
    return np.asarray(found[used])
