"""Weights in the cells of crossbars, which multiply where they lie; converters stand between them and digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from fewbits.errors import UnsupportedError
from fewbits.hardware.array import Dataflow
from fewbits.hardware.layers import Layer
from fewbits.hardware.machine import Machine
from fewbits.hardware.storage import weight_bits

CELLS, ADC, DAC, PERIPHERY = "cells", "ADC", "DAC", "periphery"


@dataclass(frozen=True)
class Crossing:
    """One call of a layer on crossbars.

    Attributes:
        arrays: that hold its weights. cycles: until it is done, all of them at once.
        inward, outward: conversions of a part of an input for a row, and of a column's sum.
    """

    arrays: int
    cycles: int
    inward: int
    outward: int

    @property
    def array_cycles(self) -> int:
        """Cycles of all arrays together."""
        return self.arrays * self.cycles


def crossing(layer: Layer, machine: Machine) -> Crossing:
    """Rows are inputs, and the bits of a weight lie side by side in ``ceil(bits / cell_bits)`` columns.

    Inputs come in parts of ``step`` bits, one a cycle, and each column's sum is converted in each cycle: a layer of R
    products an output and C columns takes ``ceil(R / rows) ceil(C / columns)`` arrays (Shafiee et al., ISAAC, ISCA
    2016). Small groups share an array, along its diagonal. No layer is held twice.

    Raises:
        UnsupportedError: a product of two values, of which none lies in cells.
    """
    if not layer.stored:
        raise UnsupportedError(
            f"{layer.name} multiplies two values, and {machine.name} multiplies by weights that lie in its cells"
        )
    array, numbers = machine.array, machine.numbers
    assert array.rows is not None
    assert array.columns is not None
    assert array.cell_bits is not None
    assert array.input_step_bits is not None
    high, wide = int(array.rows.value), int(array.columns.value)
    columns = layer.outputs // layer.groups * ceil(weight_bits(layer, machine) / array.cell_bits.value)
    row_folds, column_folds = ceil(layer.reduction / high), ceil(columns / wide)
    together = max(1, min(high // layer.reduction, wide // columns))
    arrays = ceil(layer.groups / together) * row_folds * column_folds
    cycles = layer.positions * ceil(numbers.input_bits.value / array.input_step_bits.value)
    inward = layer.groups * layer.reduction * column_folds * cycles
    return Crossing(arrays, cycles, inward, layer.groups * columns * row_folds * cycles)


def peak(machine: Machine) -> float:
    """Multiplications a cycle at full widths: of crossbars with every cell in use, else one for each multiplier."""
    array, numbers = machine.array, machine.numbers
    if array.dataflow is not Dataflow.MEMORY:
        return array.multipliers
    assert array.cell_bits is not None
    assert array.input_step_bits is not None
    steps = ceil(numbers.weight_bits.value / array.cell_bits.value)
    return array.multipliers / (steps * ceil(numbers.input_bits.value / array.input_step_bits.value))


def energy(layer: Layer, machine: Machine) -> dict[str, float]:
    """Picojoules of cells, converters and all that stands around them, of what the machine has figures for."""
    found, array = crossing(layer, machine), machine.array
    each = {
        CELLS: (array.array_cycle_pj, found.array_cycles), ADC: (array.adc_pj, found.outward),
        DAC: (array.dac_pj, found.inward), PERIPHERY: (array.periphery_cycle_pj, found.array_cycles),
    }  # fmt: skip
    return {part: constant.value * times for part, (constant, times) in each.items() if constant is not None}


def held(layers: Sequence[Layer], machine: Machine) -> None:
    """Refuse a network whose weights need more arrays than there are; each weight lies there once."""
    assert machine.array.arrays is not None
    needed = {layer.name: crossing(layer, machine).arrays for layer in layers}
    have = int(machine.array.arrays.value)
    if sum(needed.values()) > have:
        largest = max(needed, key=needed.__getitem__)
        raise UnsupportedError(
            f"the weights take {sum(needed.values()):,} arrays, and {machine.name} has {have:,}; the largest is "
            f"{largest!r} with {needed[largest]:,}"
        )
