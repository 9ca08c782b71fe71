"""Traffic of a cut layer, against loops that are walked through with one part of each operand in memory."""

from __future__ import annotations

from itertools import permutations, product
from math import ceil, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import convolution
from made import product as matrix

from fewbits.hardware import Layer
from fewbits.hardware.tiling import Traffic, Widths, smallest, tiled

WIDTHS = Widths(outer_weight=3.0, inner_weight=8.0, input=8, partial=20)


def rows_of(layer: Layer, first: int, last: int) -> int:
    """Rows of inputs for output rows ``first`` to ``last - 1``; all of them belong to the whole."""
    if last - first == layer.size_out[0]:
        return layer.size_in[0]
    if not layer.kernel:
        return last - first
    reach = (last - first - 1) * layer.stride[0] + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    return min(reach, layer.size_in[0])


def walked(layer: Layer, tile: tuple[int, int, int], order: str, widths: Widths = WIDTHS) -> tuple[float, float, float]:
    """Bits of weights, inputs and outputs that move, part by part, and whatever is in memory is not moved again."""
    whole = dict(
        zip("mcp", (layer.outputs // layer.groups, layer.inputs // layer.groups, layer.size_out[0]), strict=True)
    )
    size = dict(zip("mcp", tile, strict=True))
    starts = [range(0, whole[loop], size[loop]) for loop in order]
    across_in, across_out = prod(layer.size_in[1:]), prod(layer.size_out[1:])
    moved = {"weights": 0.0, "inputs": 0.0, "outputs": 0.0}
    for group in range(layer.groups):
        there: dict[str, tuple[int, ...]] = {}
        seen: set[tuple[int, ...]] = set()
        for place in product(*starts):
            at = dict(zip(order, place, strict=True))
            long = {loop: min(size[loop], whole[loop] - at[loop]) for loop in "mcp"}
            weights, inputs, outputs = (group, at["m"], at["c"]), (group, at["c"], at["p"]), (group, at["m"], at["p"])
            if there.get("weights") != weights:
                moved["weights"] += long["m"] * long["c"] * prod(layer.kernel) * widths.outer_weight
            if there.get("inputs") != inputs:
                rows = rows_of(layer, at["p"], at["p"] + long["p"])
                moved["inputs"] += long["c"] * rows * across_in * widths.input
            if there.get("outputs") != outputs:
                numbers = long["m"] * long["p"] * across_out
                # Written at the end as done, and before that once and read once for every time that it came back.
                moved["outputs"] += numbers * (2 * widths.partial if outputs in seen else widths.input)
                seen.add(outputs)
            there = {"weights": weights, "inputs": inputs, "outputs": outputs}
    return moved["weights"], moved["inputs"], moved["outputs"]


SIZES = st.integers(1, 5)


@given(SIZES, SIZES, SIZES, st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.integers(60, 4000))
@settings(max_examples=60)
def test_the_best_cut_is_the_best_of_all_and_moves_what_it_says(
    outputs: int, inputs: int, rows: int, kernel: int, stride: int, groups: int, room: int
) -> None:
    size_in = (rows - 1) * stride + kernel
    layer = convolution(outputs * groups, inputs * groups, kernel, size_in, rows, stride=stride, groups=groups)
    found = tiled(layer, WIDTHS, room)
    best = None
    cuts = [sorted({1, 2, 4, whole} - set(range(whole + 1, 9))) for whole in (outputs, inputs, rows)]
    for tile in product(*cuts):
        m, c, p = tile
        held = m * c * kernel**2 * 8 + c * rows_of(layer, 0, p) * size_in * 8 + m * p * rows * 20
        if held <= room:
            for order in permutations("mcp"):
                total = sum(walked(layer, tile, "".join(order)))
                best = total if best is None else min(best, total)
    if found is None:
        assert best is None
        assert smallest(layer, WIDTHS) > room
        return
    assert best == pytest.approx(found.reads + found.writes)
    weights, read, written = walked(layer, found.tile, found.order)
    assert (weights, read) == pytest.approx((found.weights, found.inputs))
    assert written == pytest.approx(found.outputs + found.partial_reads + found.partial_writes)
    assert found.needed <= room


def test_with_room_for_all_everything_moves_once() -> None:
    layer = convolution(16, 8, 3, 10, 8)
    found = tiled(layer, WIDTHS, float("inf"))
    assert isinstance(found, Traffic)
    assert (found.weights, found.inputs, found.outputs) == (16 * 8 * 9 * 3, 8 * 100 * 8, 16 * 64 * 8)
    assert found.partial_reads == found.partial_writes == 0


def test_less_room_never_moves_less() -> None:
    layer = matrix(64, 128, 32)
    totals = [
        found.reads + found.writes for room in range(300, 200_000, 4_000) if (found := tiled(layer, WIDTHS, room))
    ]
    assert len(totals) > 40
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 2 * totals[-1]


def test_weights_that_pass_by_take_no_room_and_come_with_every_part_of_rows() -> None:
    layer = convolution(4, 4, 3, 34, 32)
    passing = Widths(outer_weight=8.0, inner_weight=0.0, input=8, partial=20)
    room = 4 * 34 * 6 * 8 + 4 * 32 * 4 * 20  # four rows of all outputs
    found = tiled(layer, passing, room)
    assert found is not None
    assert found.tile[2] < 32
    assert found.weights == 4 * 4 * 9 * 8 * ceil(32 / found.tile[2])
