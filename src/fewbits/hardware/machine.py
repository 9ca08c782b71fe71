"""A machine as data: what it multiplies with, what its memories hold and cost, and where each number comes from.

Every constant is ``{value: 200, source: paper}``, its key names the unit, and ``sources`` says what ``paper`` is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fewbits.errors import did_you_mean
from fewbits.recipe.notation import parse_pattern


class Strict(BaseModel):
    """Data of a description: no unknown key, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Constant(Strict):
    """A number, and the key of the source that it was read in."""

    value: float = Field(ge=0, allow_inf_nan=False, strict=True)
    source: str


class Dataflow(StrEnum):
    """How a layer is laid out on the multipliers."""

    WEIGHTS = "weights-stationary"
    INPUTS = "inputs-stationary"
    OUTPUTS = "outputs-stationary"
    ROWS = "row-stationary"
    LANES = "lanes"
    MEMORY = "in-memory"


class Storage(StrEnum):
    """How weights lie in a memory."""

    DENSE = "dense"
    BITMASK = "bitmask"
    CSR = "csr"
    RUNS = "run-length"
    PATTERN = "pattern"
    ENTROPY = "entropy-coded"


class Zero(StrEnum):
    """What becomes of a multiplication by zero: it takes time and energy, only time, or neither."""

    COMPUTE = "compute"
    GATE = "gate"
    SKIP = "skip"


class Array(Strict):
    """The multipliers.

    Attributes:
        dataflow: how a layer is laid out on them. rows, columns: of an array. lanes: of multipliers without a shape.
        keeps_inputs, keeps_weights, keeps_outputs: numbers that each keeps, of a row-stationary array.
        zero_weights, zero_inputs: what becomes of multiplications by them.
        pattern: N:M of weights that is skipped, as ``2:4``. blocks: groups of M that are stored together.
        arrays: of cells, of an in-memory machine; rows and columns are those of one. cell_bits: of a weight, in a cell.
        input_step_bits: of an input, that come in one cycle.
        array_cycle_pj: of the cells of an array in a cycle. dac_pj, adc_pj: of a conversion for a row, and of a column.
        periphery_cycle_pj: of all else in a cycle, buffers and buses included, for each array at work.
        serial_weight_bits: bits of a weight that a multiplier takes each cycle, of bit-serial lanes.
        splits_to_bits: a lane splits into twice as many of half the bits, down to this width (bit-composable).
        mac_pj: of a multiplication with its addition, at the full width; of fewer bits in proportion.
        gated_mac_pj: of one that is gated.
        operands_pj_per_mac: of reading and writing what lies at the multiplier itself.
    """

    dataflow: Dataflow
    rows: Constant | None = None
    columns: Constant | None = None
    lanes: Constant | None = None
    keeps_inputs: Constant | None = None
    keeps_weights: Constant | None = None
    keeps_outputs: Constant | None = None
    zero_weights: Zero = Zero.COMPUTE
    zero_inputs: Zero = Zero.COMPUTE
    pattern: str | None = None
    blocks: int = Field(default=1, ge=1)
    arrays: Constant | None = None
    cell_bits: Constant | None = None
    input_step_bits: Constant | None = None
    array_cycle_pj: Constant | None = None
    adc_pj: Constant | None = None
    dac_pj: Constant | None = None
    periphery_cycle_pj: Constant | None = None
    serial_weight_bits: Constant | None = None
    splits_to_bits: Constant | None = None
    mac_pj: Constant | None = None
    gated_mac_pj: Constant | None = None
    operands_pj_per_mac: Constant | None = None

    @property
    def kept(self) -> tuple[int, int] | None:
        """N and M of the pattern."""
        return None if self.pattern is None else parse_pattern(self.pattern)

    @property
    def multipliers(self) -> int:
        """How many there are; of an in-memory machine, its cells."""
        if self.lanes is not None:
            return int(self.lanes.value)
        assert self.rows is not None
        assert self.columns is not None
        arrays = 1 if self.arrays is None else self.arrays.value
        return int(self.rows.value * self.columns.value * arrays)

    def _given(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def has_energy(self) -> bool:
        """Whether a multiplication has a figure."""
        return self.mac_pj is not None or self.adc_pj is not None

    @model_validator(mode="after")
    def _complete(self) -> Array:
        needed = {"lanes"} if self.dataflow is Dataflow.LANES else {"rows", "columns"}
        if self.dataflow is Dataflow.ROWS:
            needed |= {"keeps_inputs", "keeps_weights", "keeps_outputs"}
        crossbars = {"arrays", "cell_bits", "input_step_bits"}
        if self.dataflow is Dataflow.MEMORY:
            needed |= crossbars
            digital = ("mac_pj", "gated_mac_pj", "operands_pj_per_mac")
            if (self.zero_weights, self.zero_inputs) != (Zero.COMPUTE, Zero.COMPUTE) or any(map(self._given, digital)):
                raise ValueError(f"a machine with dataflow {self.dataflow} skips no zero, and has no {digital[0]}")
        else:
            for name in ("array_cycle_pj", "adc_pj", "dac_pj", "periphery_cycle_pj"):
                if self._given(name):
                    raise ValueError(f"{name} is for dataflow {Dataflow.MEMORY}")
        shape = {"rows", "columns", "lanes", "keeps_inputs", "keeps_weights", "keeps_outputs"} | crossbars
        given = {name for name in shape if getattr(self, name) is not None}
        if given != needed:
            wrong = f"lacks {', '.join(sorted(needed - given))}"
            if needed <= given:
                wrong = f"has no {', '.join(sorted(given - needed))}"
            raise ValueError(f"a machine with dataflow {self.dataflow} {wrong}")
        for name in sorted(needed):
            number = getattr(self, name).value
            if number < 1 or number % 1:
                raise ValueError(f"{name} is a whole number from 1, got {number:g}")
        for name in ("serial_weight_bits", "splits_to_bits"):
            found = getattr(self, name)
            if found is not None and (found.value < 1 or found.value % 1 or self.dataflow is not Dataflow.LANES):
                raise ValueError(f"{name} is a whole number from 1, for dataflow {Dataflow.LANES}")
        if self.serial_weight_bits is not None and self.splits_to_bits is not None:
            raise ValueError("multipliers are bit-serial or split, not both: serial_weight_bits and splits_to_bits")
        if self.kept is not None and self.dataflow not in (Dataflow.WEIGHTS, Dataflow.LANES):
            raise ValueError(f"a pattern is for dataflow {Dataflow.WEIGHTS} or {Dataflow.LANES}")
        skipping = Zero.SKIP in (self.zero_weights, self.zero_inputs)
        if skipping and self.dataflow is not Dataflow.LANES:
            raise ValueError(f"multiplications by zero are skipped by dataflow {Dataflow.LANES} only; others gate them")
        return self


class Memory(Strict):
    """One level of memory.

    Attributes:
        name: as ``formats`` and ``passes_by`` call it. size_kib: 1 KiB is 1024 bytes; unlimited where it is left out.
        bandwidth_gb_per_s, bandwidth_bytes_per_cycle: one of them; without any, it never makes the array wait.
        read_pj_per_bit, write_pj_per_bit: energy.
        reads_beside_writes: each has the whole bandwidth.
        holds_all_weights: the weights of the whole network have to fit.
    """

    name: str
    size_kib: Constant | None = None
    bandwidth_gb_per_s: Constant | None = None
    bandwidth_bytes_per_cycle: Constant | None = None
    read_pj_per_bit: Constant | None = None
    write_pj_per_bit: Constant | None = None
    reads_beside_writes: bool = False
    holds_all_weights: bool = False

    @model_validator(mode="after")
    def _one_bandwidth(self) -> Memory:
        if self.bandwidth_gb_per_s is not None and self.bandwidth_bytes_per_cycle is not None:
            raise ValueError("bandwidth is given twice: as bandwidth_gb_per_s and as bandwidth_bytes_per_cycle")
        if self.holds_all_weights and self.size_kib is None:
            raise ValueError("a memory that holds all weights has a size_kib")
        return self


class Numbers(Strict):
    """Widths of the numbers that are computed with.

    Attributes:
        low_bit_weights: weights of fewer bits take fewer in memory; without, each takes ``weight_bits``.
        index_bits: of a run length or of a column in a sparse format.
    """

    weight_bits: Constant
    input_bits: Constant
    partial_bits: Constant
    index_bits: Constant | None = None
    low_bit_weights: bool = False


class Decoder(Strict):
    """What turns entropy-coded weights into numbers, at the edge of the outer memory."""

    pj_per_weight: Constant | None = None
    weights_per_cycle: Constant | None = None


class Machine(Strict):
    """A machine.

    Attributes:
        name, about: what it is called, and what it is, in a line.
        node_nm: of the process that its energies are for. clock_mhz: of the multipliers.
        area_mm2: of the whole chip.
        memories: from the outermost in; the last one feeds the array. One or two of them.
        formats: how weights lie in a memory, by its name; dense in others.
        passes_by: the memory that weights do not stop in, by its name.
        convolutions: whether it runs them; else only matrix products.
        activations_stay: inputs and outputs lie in the inner memory as a whole, and never leave it.
        arithmetic: the table that non-linear operations are priced by, such as ``horowitz-45nm``; of the same process.
        operation_lanes: how many steps of them are done in a cycle.
        sources: by key, what a constant was read in.
        checked: the published figures that its description reproduces, and where they are tested.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    about: str
    node_nm: Constant | None = None
    area_mm2: Constant | None = None
    clock_mhz: Constant
    array: Array
    numbers: Numbers
    memories: tuple[Memory, ...] = Field(min_length=1, max_length=2)
    formats: dict[str, Storage] = Field(default_factory=dict)
    passes_by: dict[Literal["weights"], str] = Field(default_factory=dict)
    convolutions: bool = True
    activations_stay: bool = False
    arithmetic: str | None = None
    operation_lanes: Constant | None = None
    decoder: Decoder | None = None
    sources: dict[str, str] = Field(min_length=1)
    checked: tuple[str, ...] = ()

    @property
    def outer(self) -> Memory:
        """The memory that holds everything."""
        return self.memories[0]

    @property
    def inner(self) -> Memory:
        """The memory that feeds the array."""
        return self.memories[-1]

    def bytes_per_cycle(self, memory: Memory) -> float | None:
        """Bandwidth in bytes a cycle; ``None`` if it never makes the array wait."""
        if memory.bandwidth_gb_per_s is not None:
            return memory.bandwidth_gb_per_s.value * 1e9 / (self.clock_mhz.value * 1e6)
        return None if memory.bandwidth_bytes_per_cycle is None else memory.bandwidth_bytes_per_cycle.value

    @model_validator(mode="after")
    def _known_names(self) -> Machine:
        names = [memory.name for memory in self.memories]
        if len(set(names)) < len(names):
            raise ValueError(f"two memories are called {names[0]!r}")
        for key, used in (("formats", self.formats), ("passes_by", self.passes_by.values())):
            for name in used:
                if name not in names:
                    known = ", ".join(names)
                    raise ValueError(f"{key}: no memory {name!r}{did_you_mean(name, names)}; there is {known}")
        for place, constant in constants(self):
            if constant.source not in self.sources:
                known = ", ".join(self.sources)
                raise ValueError(f"{place}: no source {constant.source!r} in sources; there is {known}")
        if self.activations_stay and len(self.memories) < 2:
            raise ValueError("activations_stay is for a machine with two memories")
        if self.clock_mhz.value <= 0:
            raise ValueError("clock_mhz is above 0")
        if self.operation_lanes is not None and (self.operation_lanes.value < 1 or self.operation_lanes.value % 1):
            raise ValueError(f"operation_lanes is a whole number from 1, got {self.operation_lanes.value:g}")
        for name, storage in self.formats.items():
            if storage in (Storage.RUNS, Storage.CSR) and self.numbers.index_bits is None:
                raise ValueError(f"formats: {name} is {storage}, which needs numbers.index_bits")
            if storage is Storage.PATTERN and self.array.pattern is None:
                raise ValueError(f"formats: {name} is {storage}, but array has no pattern")
        return self


def constants(model: BaseModel, place: str = "") -> list[tuple[str, Constant]]:
    """Every constant of a description, by its place."""
    found: list[tuple[str, Constant]] = []
    for key in type(model).model_fields:
        value, here = getattr(model, key), f"{place}{key}"
        if isinstance(value, Constant):
            found.append((here, value))
        elif isinstance(value, BaseModel):
            found += constants(value, f"{here}.")
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                if isinstance(part, BaseModel):
                    found += constants(part, f"{here}.{number}.")
    return found
