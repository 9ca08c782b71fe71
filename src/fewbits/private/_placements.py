"""Where the outputs of a map may lie, each with where the input lies as long as that is open."""

from __future__ import annotations

from collections.abc import Iterator

from fewbits.hardware.packing import Grid, Layout, Placement, Spread, grids, grouped
from fewbits.private._laid import Arrangement, Map
from fewbits.private.read import INPUT


def placements(state: Arrangement, step: Map, slots: int, which: str) -> Iterator[tuple[Placement, dict[str, Layout]]]:
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
