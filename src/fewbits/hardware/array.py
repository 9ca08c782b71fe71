"""The multipliers of a machine: how a layer is laid out on them, and what one multiplication takes."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    VECTORS = "vectors"
    UNROLLED = "unrolled"
    MEMORY = "in-memory"


class Zero(StrEnum):
    """What becomes of a multiplication by zero: it takes time and energy, only time, or neither."""

    COMPUTE = "compute"
    GATE = "gate"
    SKIP = "skip"


class Registers(Strict):
    """How a processor holds sums in vector registers, and adds products to all of them at once.

    Attributes:
        vector: sums in a register, of outputs beside each other.
        vectors, positions: a tile of outputs and positions is held at once: so many registers for each position.
        updates_per_cycle: of registers, each by products_per_update products to every sum.
        update_cycles: until the same register can be added to again.
        fills_inputs: channels of inputs are filled up to a vector, too, unless there are fewer than in one.
        cycles_per_copied_number: of laying out in a row what each output needs (im2col), where that is done.
        cycles_per_call: of each call of a layer, until it begins.
    """

    vector: Constant
    vectors: Constant
    positions: Constant
    updates_per_cycle: Constant
    products_per_update: Constant
    update_cycles: Constant
    fills_inputs: bool = False
    cycles_per_copied_number: Constant | None = None
    cycles_per_call: Constant | None = None

    @model_validator(mode="after")
    def _whole(self) -> Registers:
        _counts(self, "vector", "vectors", "positions", "updates_per_cycle", "products_per_update", "update_cycles")
        return self


class Unrolled(Strict):
    """Multipliers that take so many outputs, inputs, rows and columns of positions of a layer side by side.

    Attributes:
        depthwise: so many channels of a depthwise convolution side by side, each with its own input; else one by one.
    """

    outputs: Constant
    inputs: Constant
    rows: Constant
    columns: Constant
    depthwise: Constant | None = None

    @model_validator(mode="after")
    def _whole(self) -> Unrolled:
        _counts(self, "outputs", "inputs", "rows", "columns", *(["depthwise"] if self.depthwise else []))
        most = self.outputs.value * self.inputs.value
        if self.depthwise and self.depthwise.value > most:
            channels = f"{self.depthwise.value:g} channels"
            raise ValueError(f"depthwise: {channels}, but outputs and inputs have {most:g} multipliers side by side")
        return self


def _counts(model: BaseModel, *names: str) -> None:
    for name in names:
        number = getattr(model, name).value
        if number < 1 or number % 1:
            raise ValueError(f"{name} is a whole number from 1, got {number:g}")


class Array(Strict):
    """The multipliers.

    Attributes:
        dataflow: how a layer is laid out on them. registers: of a processor with vectors. unrolled: which
            loops run side by side. rows, columns: of an array. lanes: of multipliers without a shape.
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
    registers: Registers | None = None
    unrolled: Unrolled | None = None
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
        if self.registers is not None:
            held = self.registers
            return int(held.vector.value * held.updates_per_cycle.value * held.products_per_update.value)
        if self.unrolled is not None:
            sides = self.unrolled
            return int(sides.outputs.value * sides.inputs.value * sides.rows.value * sides.columns.value)
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
        other = {Dataflow.LANES: "lanes", Dataflow.VECTORS: "registers", Dataflow.UNROLLED: "unrolled"}
        needed = {other[self.dataflow]} if self.dataflow in other else {"rows", "columns"}
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
        shape = {
            "rows",
            "columns",
            "lanes",
            "registers",
            "unrolled",
            "keeps_inputs",
            "keeps_weights",
            "keeps_outputs",
        } | crossbars
        given = {name for name in shape if getattr(self, name) is not None}
        if given != needed:
            wrong = f"lacks {', '.join(sorted(needed - given))}"
            if needed <= given:
                wrong = f"has no {', '.join(sorted(given - needed))}"
            raise ValueError(f"a machine with dataflow {self.dataflow} {wrong}")
        _counts(self, *sorted(needed - {"registers", "unrolled"}))
        for name in ("serial_weight_bits", "splits_to_bits"):
            found = getattr(self, name)
            if found is not None and (found.value < 1 or found.value % 1 or self.dataflow is not Dataflow.LANES):
                raise ValueError(f"{name} is a whole number from 1, for dataflow {Dataflow.LANES}")
        if self.serial_weight_bits is not None and self.splits_to_bits is not None:
            raise ValueError("multipliers are bit-serial or split, not both: serial_weight_bits and splits_to_bits")
        skips = (Dataflow.WEIGHTS, Dataflow.LANES, Dataflow.UNROLLED)
        if self.kept is not None and self.dataflow not in skips:
            raise ValueError(f"a pattern is for dataflow {', '.join(skips[:-1])} or {skips[-1]}")
        skipping = Zero.SKIP in (self.zero_weights, self.zero_inputs)
        if skipping and self.dataflow is not Dataflow.LANES:
            raise ValueError(f"multiplications by zero are skipped by dataflow {Dataflow.LANES} only; others gate them")
        return self
