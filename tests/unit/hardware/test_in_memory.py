"""Crossbars: conversions counted cell by cell, a published share of the converters, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import convolution, product

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.hardware import Machine, machine_of, price
from fewbits.hardware.cost import on_machine
from fewbits.hardware.in_memory import crossing, peak

ISAAC = machine_of("isaac")


def changed(**array: Any) -> Machine:
    values = ISAAC.model_dump(mode="json")
    for key, value in array.items():
        values["array"][key] = {"value": value, "source": "isaac"}
    return machine_of(values)


def test_a_full_tile_takes_what_is_published() -> None:
    """Shafiee et al., ISAAC, table I and text: a tile of 330 mW, 58 % of it in ADCs."""
    tile = product(16 * 8, 128 * 12, 1, bits=16)
    assert crossing(tile, ISAAC).arrays == 96
    found = price([tile], ISAAC)
    assert found.seconds == pytest.approx(16 * 100e-9)
    assert found.joules is not None
    assert found.joules / found.seconds == pytest.approx(0.330, rel=0.005)
    assert found.energy_by_part["ADC"] / (found.joules * 1e12) == pytest.approx(0.58, abs=0.005)
    assert not found.unpriced


def test_the_peak_is_that_of_all_cells() -> None:
    whole = product(16 * 168, 128 * 96, 1, bits=16)
    found = price([whole], ISAAC)
    assert crossing(whole, ISAAC).arrays == 16128
    assert found.layers[0].utilization == pytest.approx(1.0)
    assert peak(ISAAC) * found.cycles == pytest.approx(whole.macs)
    with pytest.raises(UnsupportedError, match=r"take 16,296 arrays, and isaac has 16,128; the largest is 'fc.weight'"):
        price([product(16 * 168, 128 * 97, 1, bits=16)], ISAAC)


@settings(max_examples=60)
@given(
    groups=st.integers(1, 4), outputs=st.integers(1, 5), inputs=st.integers(1, 5), kernel=st.integers(1, 3),
    bits=st.integers(1, 16), rows=st.integers(2, 12), columns=st.integers(2, 12),
)  # fmt: skip
def test_conversions_are_those_of_cells_that_are_placed_one_by_one(
    groups: int, outputs: int, inputs: int, kernel: int, bits: int, rows: int, columns: int
) -> None:
    machine = changed(rows=rows, columns=columns)
    layer = convolution(groups * outputs, groups * inputs, kernel, 4, 2, groups=groups, bits=bits)
    high, wide = inputs * kernel**2, outputs * -(-bits // 2)
    used_rows, used_columns, arrays = 0, 0, set()
    places = max(1, min(rows // high, columns // wide))
    for group in range(groups):
        cells: dict[Any, set[tuple[int, int]]] = {}
        turn, place = divmod(group, places)
        for row in range(high):
            for column in range(wide):
                at = (turn, row // rows, column // columns)
                spot = (place * high + row, place * wide + column) if places > 1 else (row % rows, column % columns)
                cells.setdefault(at, set()).add(spot)
                assert spot[0] < rows
                assert spot[1] < columns
        used_rows += sum(len({row for row, _ in spots}) for spots in cells.values())
        used_columns += sum(len({column for _, column in spots}) for spots in cells.values())
        arrays |= set(cells)
    found = crossing(layer, machine)
    assert found.arrays == len(arrays)
    assert found.cycles == 4 * 16
    assert found.inward == used_rows * found.cycles
    assert found.outward == used_columns * found.cycles


def test_fewer_bits_take_fewer_conversions_and_zeros_save_nothing() -> None:
    dense = product(64, 256, 5, bits=16)
    found = {bits: price([replace(dense, bits=bits)], ISAAC).energy_by_part for bits in (16, 4)}
    assert found[4]["ADC"] == found[16]["ADC"] / 4
    sparse = replace(dense, nonzero=10.0, products=50.0)
    assert price([sparse], ISAAC).energy_by_part == found[16]


def test_a_product_of_two_values_is_refused_and_an_energy_can_be_asked_for() -> None:
    values = replace(product(3, 8, 3), stored=False, name="attention: 3 x 8")
    with pytest.raises(UnsupportedError, match="multiplies two values, and isaac multiplies by weights"):
        price([values], ISAAC)
    assert on_machine("energy", ISAAC)


def test_descriptions_that_are_none() -> None:
    values = ISAAC.model_dump(mode="json")
    del values["array"]["cell_bits"]
    with pytest.raises(RecipeError, match="a machine with dataflow in-memory lacks cell_bits"):
        machine_of(values)
    values = ISAAC.model_dump(mode="json")
    with pytest.raises(RecipeError, match="dataflow in-memory skips no zero, and has no mac_pj"):
        machine_of({**values, "array": {**values["array"], "zero_weights": "gate"}})
    values = machine_of("stc").model_dump(mode="json")
    with pytest.raises(RecipeError, match="adc_pj is for dataflow in-memory"):
        machine_of({**values, "array": {**values["array"], "adc_pj": {"value": 1, "source": "ours"}}})
