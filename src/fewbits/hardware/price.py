"""Time, energy and memory traffic of a network on a machine, layer by layer, and what bounds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from fewbits.errors import RecipeError, UnsupportedError
from fewbits.hardware import in_memory
from fewbits.hardware.array import Dataflow, Zero
from fewbits.hardware.dataflow import Kept, Work, lanes, row_stationary, stored_rows, systolic, unrolled, vectors
from fewbits.hardware.layers import Known, Layer
from fewbits.hardware.machine import Machine, Memory, Storage
from fewbits.hardware.operations import Operation, OperationPrice
from fewbits.hardware.operations import priced as priced_operations
from fewbits.hardware.storage import run_entries, stored_bits
from fewbits.hardware.tiling import Traffic, Widths, smallest, tiled

ARRAY = "multipliers"
DECODER = "decoder"


@dataclass(frozen=True)
class LayerPrice:
    """What a layer takes, all its calls together, for one sample.

    Attributes:
        name: of its weight. macs: multiplications, zeros included. products: those without a zero.
        cycles: until it is done. compute_cycles: of the multipliers alone. bound: what takes longest.
        utilization: share of multipliers and compute cycles that multiply.
        weight_bytes: as they lie in the outermost memory; of the second of two values, as that lies there.
        bytes: that pass each memory, by its name. energy_pj: by part, of the parts that the machine has figures for.
        tile, order: how it is cut to fit the inner memory; ``None`` with one memory.
        weights_known, inputs_known: where its zeros come from.
    """

    name: str
    macs: int
    products: float
    cycles: float
    compute_cycles: float
    bound: str
    utilization: float
    weight_bytes: float
    bytes: dict[str, float]
    energy_pj: dict[str, float]
    tile: tuple[int, int, int] | None
    order: str | None
    weights_known: Known
    inputs_known: Known

    @property
    def stall_cycles(self) -> float:
        """Cycles in which the multipliers wait."""
        return self.cycles - self.compute_cycles


@dataclass(frozen=True)
class Price:
    """What a network takes on a machine, for one sample.

    Attributes:
        machine, clock_mhz: its name, and of its multipliers. area_mm2: of the whole chip, where a source has it.
        layers: in order of first use.
        unpriced: parts that the machine has no energy of; their energy is left out of the sum.
        operations: non-linear ones. They are in no sum: exact ones have no figures, so that sums could not be compared.
    """

    machine: str
    clock_mhz: float
    layers: tuple[LayerPrice, ...]
    unpriced: tuple[str, ...]
    operations: tuple[OperationPrice, ...] = ()
    area_mm2: float | None = None

    @property
    def cycles(self) -> float:
        """All layers after another."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Latency of one sample."""
        return self.cycles / (self.clock_mhz * 1e6)

    @property
    def joules(self) -> float | None:
        """Energy of one sample; ``None`` where the machine has no figures at all."""
        parts = self.energy_by_part
        return sum(parts.values()) * 1e-12 if parts else None

    @property
    def macs(self) -> int:
        """Multiplications, zeros included."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bytes_by_memory(self) -> dict[str, float]:
        """Bytes that pass each memory, from the outermost in."""
        return _summed([layer.bytes for layer in self.layers])

    @property
    def energy_by_part(self) -> dict[str, float]:
        """Picojoules of the multipliers and of each memory."""
        return _summed([layer.energy_pj for layer in self.layers])

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        totals = {name: getattr(self, name) for name in ("cycles", "seconds", "joules", "macs", "bytes_by_memory")}
        return {**totals, "energy_pj": self.energy_by_part, **asdict(self)}


def price(layers: Sequence[Layer], machine: Machine, batch: int = 1, operations: Sequence[Operation] = ()) -> Price:
    """What layers take on a machine, one after another, for one sample.

    A layer takes as long as the slowest of its parts: the multipliers, each memory's bandwidth, the decoder (Williams
    et al., Roofline, 2009). Inputs and outputs lie dense, and every layer reads and writes them in the outer memory,
    unless they stay. Additions of biases, normalisation, activations and pooling are not priced.

    Args:
        batch: samples that go through a layer together; all figures are still of one sample.
        operations: non-linear ones, as of :func:`fewbits.hardware.operations.operations`.

    Raises:
        UnsupportedError: a layer that does not fit a memory of the machine, or nothing to price.
        RecipeError: an impossible batch.
    """
    if batch < 1:
        raise RecipeError(f"a batch is at least one sample, got {batch}")
    if not layers:
        raise UnsupportedError("the network multiplies no matrices and has no convolution: there is nothing to price")
    if not machine.convolutions:
        for layer in layers:
            if layer.kernel:
                raise UnsupportedError(f"{layer.name} is a convolution, and {machine.name} runs matrix products only")
    if machine.array.dataflow is Dataflow.MEMORY:
        in_memory.held(layers, machine)
    for memory in machine.memories:
        if memory.holds_all_weights:
            _held(layers, machine, memory)
    priced = tuple(_layer(layer, machine, batch) for layer in layers)
    area = None if machine.area_mm2 is None else machine.area_mm2.value
    swapped = priced_operations(operations, machine)
    return Price(machine.name, machine.clock_mhz.value, priced, _unpriced(machine), swapped, area)


def _held(layers: Sequence[Layer], machine: Machine, memory: Memory) -> None:
    assert memory.size_kib is not None
    storage = machine.formats.get(memory.name, Storage.DENSE)
    bits = {
        layer.name: stored_bits(layer, machine, storage) for layer in layers if layer.stored
    }  # a weight lies there once
    room, needed = memory.size_kib.value * 1024, sum(bits.values()) / 8
    if needed > room:
        largest = max(bits, key=bits.__getitem__)
        raise UnsupportedError(
            f"the weights take {needed / 1024:,.1f} KiB, and {memory.name} of {machine.name} holds "
            f"{room / 1024:,.1f} KiB; the largest is {largest!r} with {bits[largest] / 8192:,.1f} KiB"
        )


def _layer(one: Layer, machine: Machine, batch: int) -> LayerPrice:
    layer = _stacked(one, batch)
    outer, inner = machine.outer, machine.inner
    outer_bits = stored_bits(layer, machine, machine.formats.get(outer.name, Storage.DENSE))
    inner_bits = stored_bits(layer, machine, machine.formats.get(inner.name, Storage.DENSE))
    work = _work(one, machine, batch)
    numbers = machine.numbers
    passing = machine.passes_by.get("weights") == inner.name
    widths = Widths(
        outer_bits / layer.weights, 0.0 if passing else inner_bits / layer.weights,
        int(numbers.input_bits.value), int(numbers.partial_bits.value),
    )  # fmt: skip
    traffic = _cut(layer, widths, machine) if outer is not inner else None
    reads, writes = _inner(layer, work, widths, traffic)
    moved = {inner.name: (reads, writes)}
    if traffic is not None:
        weights = max(traffic.weights, work.weight_reads * widths.outer_weight) if passing else traffic.weights
        moved = {outer.name: (traffic.reads - traffic.weights + weights, traffic.writes)} | moved
    times = {ARRAY: work.cycles}
    for memory in machine.memories:
        speed = machine.bytes_per_cycle(memory)
        if speed:
            waits = max if memory.reads_beside_writes else sum
            times[memory.name] = ceil(waits(moved[memory.name]) / 8 / speed)
    decoder = machine.decoder
    if decoder is not None and decoder.weights_per_cycle is not None and layer.stored:
        times[DECODER] = ceil(layer.weights / decoder.weights_per_cycle.value)
    bound = max(times, key=times.__getitem__)
    calls, share = layer.calls, layer.calls / batch
    return LayerPrice(
        one.name, one.macs * calls, one.products * calls, times[bound] * share, work.cycles * share, bound,
        work.utilization, outer_bits / 8,
        {name: (read + written) / 8 * share for name, (read, written) in moved.items()},
        {part: energy * share for part, energy in _energy(layer, machine, moved).items()},
        None if traffic is None else traffic.tile, None if traffic is None else traffic.order,
        one.weights_known, one.inputs_known,
    )  # fmt: skip


def _stacked(layer: Layer, batch: int) -> Layer:
    """A layer on a batch: samples follow each other along the first axis of positions."""
    if batch == 1:
        return layer
    (high_in, *rest_in), (high_out, *rest_out) = layer.size_in, layer.size_out
    size_in, size_out = (high_in * batch, *rest_in), (high_out * batch, *rest_out)
    return replace(layer, size_in=size_in, size_out=size_out, products=layer.products * batch)


def _work(one: Layer, machine: Machine, batch: int) -> Work:
    array, layer = machine.array, _stacked(one, batch)
    pattern = array.kept if array.kept is not None and layer.follows(*array.kept) else None
    stored = None if pattern is None else stored_rows(layer, *pattern, array.blocks)
    if array.dataflow is Dataflow.LANES:
        return lanes(layer, array.multipliers, sum(multiplied(layer, machine)) * _slots(layer, machine))
    if array.registers is not None:
        return vectors(layer, array.registers)
    if array.unrolled is not None:
        return unrolled(layer, array.unrolled, stored)
    if array.dataflow is Dataflow.MEMORY:  # weights are read by nobody
        cycles = in_memory.crossing(layer, machine).cycles
        busy = layer.macs / (in_memory.peak(machine) * cycles)
        return Work(cycles, busy, 0.0, layer.input_numbers, layer.output_numbers)
    assert array.rows is not None
    assert array.columns is not None
    rows, columns = int(array.rows.value), int(array.columns.value)
    if array.dataflow is Dataflow.ROWS:
        assert array.keeps_inputs is not None
        assert array.keeps_weights is not None
        assert array.keeps_outputs is not None
        kept = Kept(*(int(k.value) for k in (array.keeps_inputs, array.keeps_weights, array.keeps_outputs)))
        work = row_stationary(one, rows, columns, kept)  # samples one by one while weights stay in the multipliers
        moved = (batch * number for number in (work.input_reads, work.output_writes, work.partial_reads))
        return Work(work.cycles * batch, work.utilization, work.weight_reads, *moved)
    return systolic(layer, rows, columns, array.dataflow.value.removesuffix("-stationary"), stored)


def multiplied(layer: Layer, machine: Machine) -> tuple[float, float]:
    """Multiplications of one call that are computed, and those that only take their cycle, as a zero gates them."""
    array, macs = machine.array, float(layer.macs)
    both = layer.products
    weight_only = max(0.0, layer.nonzero * layer.positions - both)
    input_only = max(0.0, macs * layer.input_density - both)
    neither = max(0.0, macs - both - weight_only - input_only)
    if array.kept is not None and layer.follows(*array.kept):
        share = min(1.0, stored_rows(layer, *array.kept, array.blocks) / layer.reduction)
        spare = macs * (1 - share)  # zeros of weights that the pattern leaves out
        taken = min(spare, neither)
        neither, input_only = neither - taken, max(0.0, input_only - (spare - taken))
    counts = {Zero.COMPUTE: both, Zero.GATE: 0.0, Zero.SKIP: 0.0}
    rank = (Zero.COMPUTE, Zero.GATE, Zero.SKIP)
    counts[array.zero_inputs] += weight_only
    counts[array.zero_weights] += input_only
    counts[max(array.zero_inputs, array.zero_weights, key=rank.index)] += neither
    if machine.formats.get(machine.inner.name) is Storage.RUNS and array.zero_weights is Zero.SKIP and layer.nonzero:
        assert machine.numbers.index_bits is not None
        more = run_entries(layer, int(machine.numbers.index_bits.value)) / layer.nonzero  # zeros that are stored
        counts[Zero.COMPUTE] *= more
    return counts[Zero.COMPUTE], counts[Zero.GATE]


def width_share(layer: Layer, machine: Machine) -> float:
    """The part of a multiplier's width that weights of so few bits need: of those that are bit-serial or split."""
    array, whole = machine.array, machine.numbers.weight_bits.value
    bits = min(float(layer.bits), whole)
    if array.serial_weight_bits is not None:
        step = array.serial_weight_bits.value
        return ceil(bits / step) * step / whole
    if array.splits_to_bits is not None:
        width = array.splits_to_bits.value
        while width < bits:
            width *= 2
        return min(width, whole) / whole
    return 1.0


def _slots(layer: Layer, machine: Machine) -> float:
    """Cycles of a multiplier for one multiplication: as many as a serial one takes steps, or a share of one."""
    serial, whole = machine.array.serial_weight_bits, machine.numbers.weight_bits.value
    return width_share(layer, machine) * (1.0 if serial is None else whole / serial.value)


def _cut(layer: Layer, widths: Widths, machine: Machine) -> Traffic:
    inner = machine.inner
    room = float("inf") if inner.size_kib is None else inner.size_kib.value * 8192
    if machine.activations_stay:
        whole = (layer.outputs // layer.groups, layer.inputs // layer.groups, layer.size_out[0])
        needed = (layer.input_numbers + layer.output_numbers) * widths.input
        if needed > room:
            raise UnsupportedError(
                f"{layer.name}: its inputs and outputs take {needed / 8192:,.1f} KiB, and {inner.name} of "
                f"{machine.name} holds {room / 8192:,.1f} KiB"
            )
        return Traffic(layer.weights * widths.outer_weight, 0.0, 0.0, 0.0, 0.0, whole, "mcp", needed)
    found = tiled(layer, widths, room)
    if found is None:
        raise UnsupportedError(
            f"{layer.name}: the smallest part of it takes {smallest(layer, widths) / 8192:,.2f} KiB, and {inner.name} "
            f"of {machine.name} holds {room / 8192:,.2f} KiB"
        )
    return found


def _inner(layer: Layer, work: Work, widths: Widths, traffic: Traffic | None) -> tuple[float, float]:
    """Bits read from and written to the memory that feeds the array."""
    done = layer.output_numbers * widths.input
    again = work.output_writes - layer.output_numbers
    reads = work.weight_reads * widths.inner_weight + work.input_reads * widths.input
    reads += work.partial_reads * widths.partial
    writes = done + again * widths.partial
    if traffic is not None:  # what comes from the outer memory is written, and what goes there is read
        weights = traffic.weights / widths.outer_weight * widths.inner_weight if widths.outer_weight else 0.0
        writes += weights + traffic.inputs + traffic.partial_reads
        reads += traffic.writes
    return reads, writes


def _energy(layer: Layer, machine: Machine, moved: dict[str, tuple[float, float]]) -> dict[str, float]:
    array = machine.array
    found = in_memory.energy(layer, machine) if array.dataflow is Dataflow.MEMORY else {}
    if array.mac_pj is not None:
        computed, gated = multiplied(layer, machine)
        each = array.mac_pj.value * width_share(layer, machine) + (
            array.operands_pj_per_mac.value if array.operands_pj_per_mac else 0.0
        )
        found[ARRAY] = computed * each + gated * (array.gated_mac_pj.value if array.gated_mac_pj else 0.0)
    for memory in machine.memories:
        reads, writes = moved[memory.name]
        if memory.read_pj_per_bit is not None and memory.write_pj_per_bit is not None:
            found[memory.name] = reads * memory.read_pj_per_bit.value + writes * memory.write_pj_per_bit.value
    if machine.decoder is not None and machine.decoder.pj_per_weight is not None and layer.stored:
        found[DECODER] = layer.weights * machine.decoder.pj_per_weight.value
    return found


def _unpriced(machine: Machine) -> tuple[str, ...]:
    parts = [] if machine.array.has_energy else [ARRAY]
    if machine.array.periphery_cycle_pj is not None:  # which has the memories, too
        return tuple(parts)
    parts += [m.name for m in machine.memories if m.read_pj_per_bit is None or m.write_pj_per_bit is None]
    return (*parts, DECODER) if machine.decoder is not None and machine.decoder.pj_per_weight is None else tuple(parts)


def _summed(parts: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0.0) + number
    return total
