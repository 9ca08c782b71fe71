"""Machines by name or from YAML, and what is wrong with a description, in one sentence."""

from __future__ import annotations

from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fewbits import files
from fewbits.errors import FileError, RecipeError, did_you_mean
from fewbits.hardware.arithmetic import arithmetic_of
from fewbits.hardware.array import Array, Constant, Registers, Unrolled
from fewbits.hardware.machine import Decoder, Machine, Memory, Numbers
from fewbits.recipe.problems import said
from fewbits.recipe.yaml_text import mapping_of

_UNITS = (
    "_cycle_pj", "_mm2", "_mhz", "_nm", "_kib", "_gb_per_s", "_bytes_per_cycle", "_weights_per_cycle", "_pj_per_bit",
    "_pj_per_mac", "_pj", "_bits",
)  # fmt: skip


def machine_names() -> tuple[str, ...]:
    """The machines that come along."""
    folder = resources("fewbits.hardware") / "machines"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def machine_text(name: str) -> str:
    """The YAML of a machine that comes along, to begin one's own with.

    Raises:
        RecipeError: no such machine.
    """
    known = machine_names()
    if name not in known:
        raise RecipeError(f"no machine {name!r}{did_you_mean(name, known)}; there is {', '.join(known)}")
    return (resources("fewbits.hardware") / "machines" / f"{name}.yaml").read_text(encoding="utf-8")


def machine_of(source: str | Path | Machine | dict[str, Any]) -> Machine:
    """A machine by name, from a YAML file, or from a mapping.

    Raises:
        RecipeError: no such machine, or a description that is none: unknown key, wrong unit, unknown memory or source.
        FileError: the file cannot be read.
    """
    if isinstance(source, Machine):
        return source
    if isinstance(source, dict):
        return _checked(source, str(source.get("name", "machine")))
    name = str(source)
    if name.endswith((".yaml", ".yml")):
        text = _read(name)
    elif name in machine_names():
        text = machine_text(name)
    else:
        known, hint = ", ".join(machine_names()), did_you_mean(name, machine_names())
        raise RecipeError(f"no machine {name!r}{hint}; there is {known}, or a file that ends in .yaml")
    return _checked(mapping_of(text, name, "a machine"), name)


def _read(path: str) -> str:
    try:
        return files.read(path).decode()
    except UnicodeDecodeError:
        raise FileError(f"{path}: not text in UTF-8") from None


def _checked(values: dict[str, Any], name: str) -> Machine:
    try:
        machine = Machine.model_validate(values)
    except ValidationError as caught:
        raise RecipeError(f"{name}: {_sentence(caught, values)}") from None
    arithmetic_of(machine)
    return machine


def _sentence(caught: ValidationError, values: dict[str, Any]) -> str:
    """The first thing that is wrong, unknown keys before missing ones: the one is often the other, in another unit."""
    errors = sorted(caught.errors(), key=lambda error: error["type"] != "extra_forbidden")
    error = errors[0]
    *parents, key = error["loc"] or ("",)
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = _keys(parents)
        units = [other for other in known for unit in _UNITS if other.endswith(unit) and _named(str(key), other, unit)]
        if units:
            return f"{place}: a wrong unit; write it as {' or '.join(units)}"
        return f"{place}: no such key{did_you_mean(str(key), known)}; there is {', '.join(known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] in ("model_type", "dict_type") or key == "value":
        return f"{place}: a constant is written as {{value: 200, source: paper}}, with the number in the key's unit"
    return f"{place}{said(error)}".removeprefix(": ")


def _named(key: str, other: str, unit: str) -> bool:
    """Whether a key is what another says without its unit, alone or with one of its own."""
    quantity = other.removesuffix(unit)
    return key == quantity or key.startswith(f"{quantity}_")


def _keys(parents: list[int | str]) -> list[str]:
    """The keys that a mapping at this place may have."""
    models: dict[int | str, type[BaseModel]]
    models = {
        "array": Array,
        "registers": Registers,
        "unrolled": Unrolled,
        "memories": Memory,
        "numbers": Numbers,
        "decoder": Decoder,
    }
    named = [part for part in parents if isinstance(part, str)]
    return list((models.get(named[-1], Constant) if named else Machine).model_fields)
