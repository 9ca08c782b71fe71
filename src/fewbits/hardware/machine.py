"""A machine as data: what it multiplies with, what its memories hold and cost, and where each number comes from.

Every constant is ``{value: 200, source: paper}``, its key names the unit, and ``sources`` says what ``paper`` is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from fewbits.errors import did_you_mean
from fewbits.hardware.array import Array, Constant, Strict


class Storage(StrEnum):
    """How weights lie in a memory."""

    DENSE = "dense"
    BITMASK = "bitmask"
    CSR = "csr"
    RUNS = "run-length"
    PATTERN = "pattern"
    ENTROPY = "entropy-coded"


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
