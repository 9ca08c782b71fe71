"""Which layout each value gets: the choice with the least predicted time for the whole program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    split,
)
from fewbits.hardware.packing.costs import layer_cost, least_cost
from fewbits.hardware.packing.shifts import fewest
from fewbits.private._laid import Arrangement, Laid, Map, Read
from fewbits.private._placements import placements

BEAM = 4
LOOKED = 24  # placements that are looked at for a map, the most promising first
NEAR, FEW = 3, 40  # so many shifts are always looked at
SLACK = 1.5  # layouts that cost more than the cheapest by this factor are not looked at


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
        (placement, {**state.layouts, **layouts}) for placement, layouts in placements(state, step, slots, which)
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
