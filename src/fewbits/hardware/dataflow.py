"""Compute cycles of a layer by the machine's dataflow, and what the array reads and writes for it meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from fewbits.hardware.array import Registers, Unrolled
from fewbits.hardware.layers import Layer


@dataclass(frozen=True)
class Work:
    """One call of a layer on an array of multipliers.

    Attributes:
        cycles: without stalls. utilization: share of multipliers and cycles that multiply.
        weight_reads, input_reads, output_writes: numbers that pass between the array and the memory next to it.
        partial_reads: outputs that are read again to be added to.
    """

    cycles: float
    utilization: float
    weight_reads: float
    input_reads: float
    output_writes: float
    partial_reads: float = 0.0


@dataclass(frozen=True)
class Kept:
    """How many inputs, weights and outputs one multiplier of a row-stationary array keeps."""

    inputs: int
    weights: int
    outputs: int


def systolic(layer: Layer, rows: int, columns: int, stationary: str, stored: int | None = None) -> Work:
    """A systolic array of ``rows`` x ``columns`` multipliers; groups go one after the other.

    With T positions, Sr and Sc what lies along rows and columns, folds = ceil(Sr / R) ceil(Sc / C), and all folds
    after another: weights or inputs stationary take ``folds (T + 2 R + C - 2) - 1`` cycles, outputs stationary
    ``folds (T + R + C - 2) - 1``. These are the cycles of SCALE-Sim (Samajdar et al. 2020, arXiv 1811.02883, and its
    third version's golden cases), without stalls.

    Args:
        stationary: weights, inputs or outputs.
        stored: products of one output that are kept where weights have an N:M pattern; default: all.
    """
    reduction = layer.reduction if stored is None else stored
    outputs, positions, groups = layer.outputs // layer.groups, layer.positions, layer.groups
    along = {
        "weights": (positions, reduction, outputs),
        "inputs": (outputs, reduction, positions),
        "outputs": (reduction, positions, outputs),
    }
    time, along_rows, along_columns = along[stationary]
    row_folds, column_folds = ceil(along_rows / rows), ceil(along_columns / columns)
    folds = row_folds * column_folds * groups
    fill = rows + columns - 2 + (0 if stationary == "outputs" else rows)
    cycles = folds * (time + fill) - 1
    macs = reduction * outputs * positions * groups
    if stationary == "outputs":
        reads = (reduction * outputs * row_folds, reduction * positions * column_folds, outputs * positions)
    elif stationary == "weights":
        reads = (reduction * outputs, reduction * positions * column_folds, outputs * positions * row_folds)
    else:
        reads = (reduction * outputs * column_folds, reduction * positions, outputs * positions * row_folds)
    weights, inputs, writes = (groups * number for number in reads)
    partial = writes - groups * outputs * positions
    return Work(cycles, macs / (rows * columns * cycles), weights, inputs, writes, partial)


def row_stationary(layer: Layer, rows: int, columns: int, kept: Kept) -> Work:
    """Eyeriss: a filter's rows lie along the array's rows, as often as they fit, and output rows along its columns.

    Each multiplier convolves one row, so a layer takes its MACs over the multipliers in use; output rows are dealt out
    over the fewest passes. Next to the array an input is read once for each set of filters that passes, and an output
    is added to once for each set of channels. How many filters and channels a multiplier keeps, and how the sets along
    the rows are dealt out to them, is searched for the fewest such reads and writes (Chen, Emer and Sze, ISCA 2016,
    sections V and VI; IEEE JSSC 2017, table IV).

    Args:
        kept: numbers of each operand that a multiplier keeps.
    """
    high, wide = layer.kernel[:2] if len(layer.kernel) > 1 else (1, *layer.kernel, 1)[:2]
    strips = ceil(high / rows)  # a filter higher than the array is cut
    sets = max(1, rows // high)
    out = layer.size_out[0]
    passes = ceil(out / columns)
    cycles = ceil(layer.macs * passes * strips / (min(rows, high * sets) * out))
    channels, filters = layer.inputs // layer.groups, layer.outputs // layer.groups
    best = None
    for deep in range(1, min(channels, max(1, kept.inputs // wide)) + 1):
        along = max(1, min(filters, kept.outputs, kept.weights // (deep * wide)))
        for spread in {1, sets, *(s for s in range(1, sets + 1) if sets % s == 0)}:
            inputs = layer.input_numbers * ceil(filters / (along * spread))
            writes = layer.output_numbers * ceil(channels / (deep * max(1, sets // spread))) * strips
            partial = writes - layer.output_numbers
            if best is None or inputs + writes + partial < sum(best):
                best = (inputs, writes, partial)
    assert best is not None
    inputs, writes, partial = best
    busy = layer.macs / (rows * columns * cycles)
    return Work(cycles, busy, layer.weights * passes, inputs, writes, partial)


def lanes(layer: Layer, multipliers: int, products: float) -> Work:
    """Multipliers that are all fed: ``products`` of a call, one a cycle each; each number is read or written once.

    The least that any such machine takes: nothing waits for a neighbour that has more to do.

    One multiplier is the sparse processing element of Eyeriss v2 (Chen et al. 2019): it takes
    ``sum over input channels of nonzero inputs x nonzero weights`` cycles.
    """
    cycles = ceil(products / multipliers)
    busy = products / (multipliers * cycles) if cycles else 0.0
    return Work(cycles, busy, layer.weights, layer.input_numbers, layer.output_numbers)


def vectors(layer: Layer, held: Registers) -> Work:
    """A processor: the sums of a tile lie in vector registers, and each step adds products to all of them.

    A tile of v registers for each of p positions takes ``ceil(K / k) max(latency, v p / u)`` cycles for the K products
    of an output, with k products and u registers at once: too few sums wait for each other's additions (Low et al.,
    Analytical Modeling Is Enough for High-Performance BLIS, ACM TOMS 43(2), 2016, section 4). Tiles end with the row
    of positions. Copying inputs and beginning a call come before. A depthwise layer has its groups along registers, and
    copies none.
    """
    wide, tall = int(held.vector.value), int(held.vectors.value)
    depthwise = layer.outputs == layer.groups > 1
    groups, outputs = (1, layer.outputs) if depthwise else (layer.groups, layer.outputs // layer.groups)
    channels, taps = layer.inputs // layer.groups, prod(layer.kernel)
    if held.fills_inputs and channels >= wide:
        channels = ceil(channels / wide) * wide
    steps = ceil(channels * taps / held.products_per_update.value)
    filled = ceil(outputs / wide)
    tiles = [1] * filled if depthwise else [tall] * (filled // tall) + [filled % tall] * (filled % tall > 0)
    along, *others = reversed(layer.size_out)
    full, rest = divmod(along, int(held.positions.value))
    across = [held.positions.value] * full + [rest] * (rest > 0)
    per_step = sum(max(held.update_cycles.value, v * p / held.updates_per_cycle.value) for v in tiles for p in across)
    cycles = groups * prod(others) * steps * per_step
    if held.cycles_per_copied_number is not None and not depthwise:
        cycles += held.cycles_per_copied_number.value * layer.positions * layer.reduction * layer.groups
    if held.cycles_per_call is not None:
        cycles += held.cycles_per_call.value
    most = wide * held.updates_per_cycle.value * held.products_per_update.value
    return Work(ceil(cycles), layer.macs / (most * cycles), layer.weights, layer.input_numbers, layer.output_numbers)


def unrolled(layer: Layer, sides: Unrolled, stored: int | None = None) -> Work:
    """Multipliers that run loops side by side, all others after each other; a side that is not filled idles.

    Where an N:M pattern leaves ``stored`` products of an output, only those inputs are taken.

    Sums stay until they are done, and a memory beside the multipliers keeps weights. So an input is read once for each
    set of outputs and place in the kernel. These are the cycles of ZigZag (Mei et al., IEEE Trans. Computers 70(8),
    2021) without stalls, and the reads of the order that it finds for convolutions.
    """
    outputs, inputs = layer.outputs // layer.groups, layer.inputs // layer.groups
    columns, *rows = reversed(layer.size_out)
    sets = ceil(outputs / sides.outputs.value)
    places = ceil(columns / sides.columns.value) * ceil(prod(rows) / sides.rows.value)
    taken = inputs if stored is None else stored / prod(layer.kernel)
    groups = layer.groups
    if sides.depthwise is not None and outputs == inputs == 1:
        groups = ceil(groups / sides.depthwise.value)
    cycles = groups * sets * ceil(taken / sides.inputs.value) * prod(layer.kernel) * places
    most = sides.outputs.value * sides.inputs.value * sides.rows.value * sides.columns.value
    reads = layer.groups * sets * layer.reduction * layer.positions
    return Work(cycles, layer.macs / (most * cycles), layer.weights, reads, layer.output_numbers)


def stored_rows(layer: Layer, kept: int, of: int, multiple: int = 1) -> int:
    """Products of one output that an N:M pattern stores: ``kept`` of each ``of``, groups filled up to ``multiple``."""
    reduction = ceil(layer.reduction / (of * multiple)) * of * multiple
    return reduction // of * kept
