"""What swapped non-linear operations take: steps of their formulas, priced by a table of arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2, prod
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.approximation import Approximation, Pieces
from fewbits.errors import UnsupportedError
from fewbits.hardware.arithmetic import Arithmetic, Kind, What, arithmetic_of
from fewbits.hardware.machine import Machine
from fewbits.ops.places import ROWS, watched
from fewbits.task.batches import called, sample_of, told

Step = tuple[What, Kind, int]
"""What is done, with which numbers, of how many bits."""

FADD: Step = ("add", "float", 32)
FMUL: Step = ("multiply", "float", 32)
ADD: Step = ("add", "integer", 32)
MUL: Step = ("multiply", "integer", 32)
MANTISSA = 24  # bits of a float32 quotient
ROOT_BITS = 31  # of the root in a normalisation of integers
NUMBER = 32  # bits of a coefficient as it is stored


@dataclass(frozen=True)
class Steps:
    """What one value takes.

    Attributes:
        each: how often a value takes a step. row: how often a row of values does, as the root of a normalisation.
        read_bits, row_read_bits: of knots and coefficients, for a value and for a row. table_bits: of all of them.
    """

    each: Mapping[Step, int]
    row: Mapping[Step, int]
    read_bits: int = 0
    table_bits: int = 0
    row_read_bits: int = 0


@dataclass(frozen=True)
class Operation:
    """An operation of a network, for one sample.

    Attributes:
        name: as of :data:`fewbits.approximation.OPERATIONS`. values: how many it gives, in all places together.
        rows: of softmax and normalisation, how many; else 0. approximation: what is computed in its place, if anything.
    """

    name: str
    values: int
    rows: int
    approximation: Approximation | None


@dataclass(frozen=True)
class OperationPrice:
    """What an operation takes on a machine, for one sample. ``None`` is not priced: there is no source.

    Attributes:
        name, values: as of :class:`Operation`. form: what is computed.
        steps: additions, multiplications and reads of a value, on average; a division has one for each bit.
        cycles: of all values, on as many lanes as the machine has, each of which takes a step a cycle.
        energy_pj: of all values.
        area_um2: of a unit that takes a value every cycle, as it has an adder or a multiplier for each step; without
            its memory.
    """

    name: str
    form: str
    values: int
    steps: float | None
    cycles: float | None
    energy_pj: float | None
    area_um2: float | None


def operations(model: nn.Module, inputs: Any, approximations: Mapping[str, Approximation]) -> tuple[Operation, ...]:
    """The operations that a network computes for one sample, in order of first use.

    Args:
        model: a plain network without approximations; runs once, in evaluation mode.
        inputs: the shape of one sample, or the inputs of a batch, of which the first runs.
        approximations: by operation.

    Raises:
        UnsupportedError: the network does not take such a sample.
    """
    values: Counter[str] = Counter()
    rows: Counter[str] = Counter()

    def seen(path: str, name: str, x: Tensor, options: dict[str, Any]) -> None:
        values[name] += x.numel()
        if name in ROWS:
            dims = (options["dim"],) if name == "softmax" else tuple(range(-max(len(options["shape"]), 1), 0))
            rows[name] += x.numel() // max(1, prod(x.shape[dim] for dim in dims))

    training = {module: module.training for module in model.modules()}
    args, named = called(sample_of(inputs, next(model.parameters(), torch.zeros(()))))
    model.eval()
    try:
        with torch.no_grad(), watched(model, seen):
            model(*args, **named)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        why = " ".join(str(error).split())
        raise UnsupportedError(f"the network does not take a sample of {told(inputs)} ({why})") from None
    finally:
        for module, mode in training.items():
            module.training = mode
    return tuple(Operation(name, values[name], rows[name], approximations.get(name)) for name in values)


def priced(found: Iterable[Operation], machine: Machine) -> tuple[OperationPrice, ...]:
    """What operations take on a machine. Exact ones are not priced: nothing says how a machine computes them."""
    table = arithmetic_of(machine)
    return tuple(_priced(one, machine, table) for one in found)


def _priced(one: Operation, machine: Machine, table: Arithmetic | None) -> OperationPrice:
    if one.approximation is None:
        return OperationPrice(one.name, "exact", one.values, None, None, None, None)
    row = one.values // one.rows if one.rows else 1
    steps = steps_of(one.approximation, row)
    each = (
        sum(steps.each.values())
        + ceil(steps.read_bits / NUMBER)
        + (sum(steps.row.values()) + ceil(steps.row_read_bits / NUMBER)) / row
    )
    lanes = machine.operation_lanes
    return OperationPrice(
        one.name, str(one.approximation).split(" by ", 1)[1], one.values, each,
        None if lanes is None else ceil(each * one.values / lanes.value),
        None if table is None else _energy(steps, table, one.values, one.rows),
        None if table is None else _area(steps, table),
    )  # fmt: skip


def _energy(steps: Steps, table: Arithmetic, values: int, rows: int) -> float | None:
    total = 0.0
    for counts, times in ((steps.each, values), (steps.row, rows)):
        for step, count in counts.items():
            units = table.units(*step)
            if not units:
                return None
            total += times * count * sum(unit.energy_pj.value for unit in units)
    read = table.read_pj(values * steps.read_bits + rows * steps.row_read_bits, steps.table_bits / 8192)
    if read is None and steps.table_bits:
        return None
    return total + (read or 0.0)


def _area(steps: Steps, table: Arithmetic) -> float | None:
    total = 0.0
    for step, count in (Counter(steps.each) + Counter(steps.row)).items():
        areas = [unit.area_um2 for unit in table.units(*step)]
        if not areas or any(area is None for area in areas):
            return None
        total += count * sum(area.value for area in areas if area is not None)
    return total


def steps_of(approximation: Approximation, row: int = 1) -> Steps:
    """The steps of one value, as the reference in NumPy takes them.

    A comparison is a subtraction. A division is one subtraction for each bit of its quotient, and a root one for each
    bit of its result (digit by digit). Shifts and the exponent of a float are wires, and cost nothing here.

    Args:
        row: values of a row, of softmax and normalisation.
    """
    kind, name = approximation.kind, approximation.operation
    if kind == "squared-relu":
        return Steps({FADD: 1, FMUL: 1}, {})
    if kind == "relu":  # over the length of the row
        return Steps({FADD: 1, FMUL: 1}, {})
    if kind == "integer":
        if name == "softmax":
            return _integer_softmax(approximation.bits, row)
        if name in ROWS:
            return _integer_normalisation(approximation.bits, row, centre=name == "layer_norm")
        assert approximation.pieces is not None
        return _integer_lines(approximation.pieces, approximation.bits)
    assert approximation.pieces is not None
    core = _pieces(approximation.pieces, table=kind == "table")
    return _reduced(name, core) if approximation.reduced else core


def _more(steps: Steps, each: Mapping[Step, int]) -> Steps:
    return Steps(Counter(steps.each) + Counter(each), steps.row, steps.read_bits, steps.table_bits)


def _pieces(pieces: Pieces, *, table: bool) -> Steps:
    """``sum_k c_k ((x - middle) / scale)^k`` by Horner's rule, on the piece that halving finds; a table's by a product.

    The counts are those of :attr:`Approximation.work`.
    """
    halvings, degree, count = ceil(log2(len(pieces.coefficients))), pieces.degree, len(pieces.coefficients)
    each = {FADD: 1 + degree + (0 if table else halvings), FMUL: degree + (1 if table else 0)}
    if count == 1:  # whose numbers are wired
        return Steps(each, {})
    own = degree + 1 + (degree > 0)  # the middle, too
    reads = own + (0 if table else halvings)
    return Steps(each, {}, reads * NUMBER, count * (own + (0 if table else 1)) * NUMBER)


def _reduced(name: str, core: Steps) -> Steps:
    """Powers of two are split off, which only the exponent sees: an addition of eight bits."""
    exponent: Step = ("add", "integer", 8)
    power = _more(core, {FMUL: 1, FADD: 2, exponent: 1})  # x log2 e, its whole part, the rest
    if name == "exp":
        return power
    if name == "log":
        return _more(core, {FMUL: 1, FADD: 1})
    if name == "softmax":  # the largest, the difference, the sum, the quotient
        return _more(power, {FADD: 3, ADD: MANTISSA})
    if name in ("layer_norm", "rms_norm"):
        centre = 2 if name == "layer_norm" else 0  # the sum, the difference
        row = Counter(core.each) + Counter({exponent: 1, FMUL: 1 + centre // 2, FADD: 1})
        each = {FMUL: 2, FADD: 1 + centre}  # a square, its sum, the product with the root's inverse
        return Steps(each, row, 0, core.table_bits, core.read_bits)
    return _more(core, {exponent: 1})


def _integer_lines(pieces: Pieces, bits: int) -> Steps:
    """``(c_0 + c_1 (x - knot)) >> shift``, inside of the domain."""
    count = len(pieces.coefficients)
    halvings = ceil(log2(count))
    level: Step = ("add", "integer", bits)
    each = Counter({level: halvings + 3}) + Counter({MUL: 1, ADD: 1})
    if count == 1:
        return Steps(each, {})
    return Steps(each, {}, (halvings + 1) * bits + 2 * NUMBER, count * (bits + 2 * NUMBER))


def _integer_softmax(bits: int, row: int) -> Steps:
    """Largest, difference, limit; x log2 e and a polynomial of degree three; sum, and quotient of ``bits + 1`` bits."""
    wide: Step = ("add", "integer", 26 + ceil(log2(row)))
    return Steps(Counter({ADD: 3 + 3, MUL: 1 + 3}) + Counter({wide: 1 + 1 + bits + 1}), {})


def _integer_normalisation(bits: int, row: int, *, centre: bool) -> Steps:
    """``n x - sum x``, the sum of its squares, and a quotient of ``bits`` bits; a row has a mean and a root."""
    wide: Step = ("add", "integer", 62)
    each = Counter({MUL: 2, ADD: 1 + bits + (2 if centre else 0)}) + Counter({wide: 1})
    return Steps(each, {wide: 62 + 1 + ROOT_BITS})


def not_priced(found: Sequence[OperationPrice]) -> tuple[str, ...]:
    """Operations without an energy, by name and form."""
    return tuple(f"{one.name} ({one.form})" for one in found if one.energy_pj is None)
