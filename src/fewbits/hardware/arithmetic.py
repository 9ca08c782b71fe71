"""Tables of arithmetic as data: what an addition, a multiplication or a read takes, each number with its source."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Literal

from pydantic import Field, model_validator

from fewbits.errors import RecipeError, did_you_mean
from fewbits.hardware.array import Constant, Strict
from fewbits.hardware.machine import Machine, constants
from fewbits.recipe.yaml_text import mapping_of

What = Literal["add", "multiply"]
Kind = Literal["integer", "float"]


class Component(Strict):
    """An adder or a multiplier of one width.

    Attributes:
        numbers: what it computes with. bits: of each operand. energy_pj: of one result. area_um2: of the unit.
    """

    what: What
    numbers: Kind
    bits: int = Field(ge=1)
    energy_pj: Constant
    area_um2: Constant | None = None


class Read(Strict):
    """A memory of a size, and what a bit that is read from it takes."""

    size_kib: Constant
    energy_pj_per_bit: Constant


class Arithmetic(Strict):
    """A table of components of one process.

    Attributes:
        components: in any order. reads: likewise. sources: by key, what a constant was read in.
    """

    name: str
    about: str
    node_nm: Constant
    components: tuple[Component, ...] = Field(min_length=1)
    reads: tuple[Read, ...] = ()
    sources: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_sources(self) -> Arithmetic:
        for place, constant in constants(self):
            if constant.source not in self.sources:
                raise ValueError(f"{place}: no source {constant.source!r}; there is {', '.join(self.sources)}")
        return self

    def units(self, what: What, numbers: Kind, bits: int) -> tuple[Component, ...]:
        """What does such a step: the narrowest unit that is wide enough, or several of the widest adder of integers.

        Nothing is scaled between widths. Empty where the table lacks it: a wider multiplier, other floats.
        """
        found = sorted((c for c in self.components if (c.what, c.numbers) == (what, numbers)), key=lambda c: c.bits)
        for component in found:
            if component.bits == bits or (component.bits > bits and numbers == "integer"):
                return (component,)
        if found and (what, numbers) == ("add", "integer"):  # the carry goes from one to the next
            return (found[-1],) * -(-bits // found[-1].bits)
        return ()

    def read_pj(self, bits: float, size_kib: float) -> float | None:
        """Picojoules of reading so many bits from a memory that holds so much; ``None`` beyond the largest."""
        for read in sorted(self.reads, key=lambda r: r.size_kib.value):
            if read.size_kib.value >= size_kib:
                return bits * read.energy_pj_per_bit.value
        return None


def arithmetic_names() -> tuple[str, ...]:
    """The tables that come along."""
    folder = resources("fewbits.hardware") / "arithmetic_tables"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def arithmetic_of(machine: Machine) -> Arithmetic | None:
    """The table that a machine names; ``None`` if it names none.

    Raises:
        RecipeError: no such table, or one of another process than the machine's.
    """
    name = machine.arithmetic
    if name is None:
        return None
    known = arithmetic_names()
    if name not in known:
        raise RecipeError(
            f"{machine.name}: arithmetic: no table {name!r}{did_you_mean(name, known)}; there is {', '.join(known)}"
        )
    text = (resources("fewbits.hardware") / "arithmetic_tables" / f"{name}.yaml").read_text(encoding="utf-8")
    found = Arithmetic.model_validate(mapping_of(text, name, "a table of arithmetic"))
    if machine.node_nm is None or machine.node_nm.value != found.node_nm.value:
        node = "no node_nm" if machine.node_nm is None else f"node_nm {machine.node_nm.value:g}"
        raise RecipeError(
            f"{machine.name}: arithmetic: {name} is for {found.node_nm.value:g} nm, and the machine has {node}; "
            "leave arithmetic out"
        )
    return found
