"""Machines as data: those that come along, and every way in which a description can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fewbits.errors import FileError, RecipeError
from fewbits.hardware import Machine, machine_names, machine_of

SMALL = """
name: small
about: an example
clock_mhz: {value: 100, source: us}
array: {dataflow: weights-stationary, rows: {value: 8, source: us}, columns: {value: 4, source: us}}
numbers:
  weight_bits: {value: 8, source: us}
  input_bits: {value: 8, source: us}
  partial_bits: {value: 32, source: us}
memories:
  - {name: dram, bandwidth_gb_per_s: {value: 1, source: us}}
  - {name: sram, size_kib: {value: 64, source: us}}
sources: {us: made up}
"""


@pytest.mark.parametrize("name", machine_names())
def test_machines_that_come_along(name: str) -> None:
    machine = machine_of(name)
    assert machine.name == name
    assert machine.checked, "a machine reproduces a published figure, or is left out"
    assert all(len(text) > 20 for text in machine.sources.values())
    assert machine_of(machine) is machine


def test_a_file_and_a_mapping_are_the_same_machine(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    machine = machine_of(path)
    assert machine == machine_of(yaml.safe_load(SMALL)) == machine_of(str(path))
    assert machine.array.multipliers == 32
    assert machine.bytes_per_cycle(machine.outer) == 10
    assert machine.bytes_per_cycle(machine.inner) is None


def moved(key: str, other: str, *place: str | int) -> Callable[[Any], None]:
    """A change that writes a key in another way."""

    def change(values: Any) -> None:
        for part in place:
            values = values[part]
        values[other] = values.pop(key)

    return change


def put(value: Any, *place: str | int) -> Callable[[Any], None]:
    """A change that sets a value, or takes one away."""

    def change(values: Any) -> None:
        *parents, last = place
        for part in parents:
            values = values[part]
        if value is None:
            del values[last]
        else:
            values[last] = value

    return change


ONE = {"value": 1, "source": "us"}


def lanes(**more: Any) -> Callable[[Any], None]:
    """A change that gives lanes instead of an array."""

    def change(values: Any) -> None:
        values["array"] = {"dataflow": "lanes", "lanes": ONE, **more}

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (moved("clock_mhz", "clock_ghz"), "clock_ghz: a wrong unit; write it as clock_mhz"),
        (moved("clock_mhz", "clock"), "clock: a wrong unit; write it as clock_mhz"),
        (moved("size_kib", "size_mb", "memories", 1), r"memories\.1\.size_mb: a wrong unit; write it as size_kib"),
        (put(ONE, "memories", 0, "read_nj_per_bit"), "a wrong unit; write it as read_pj_per_bit"),
        (put(ONE, "memories", 0, "bandwidth_mb_per_s"), "bandwidth_gb_per_s or bandwidth_bytes_per_cycle"),
        (put(ONE, "array", "mac_fj"), "write it as mac_pj"),
        (put(ONE, "colour"), r"colour: no such key; there is name, about"),
        (put({"dramm": "csr"}, "formats"), r"formats: no memory 'dramm'; did you mean 'dram'\?; there is dram, sram"),
        (put({"weights": "glb"}, "passes_by"), "passes_by: no memory 'glb'"),
        (put({"dram": "csr"}, "formats"), r"dram is csr, which needs numbers\.index_bits"),
        (put({"dram": "pattern"}, "formats"), "array has no pattern"),
        (put({"dram": "zip"}, "formats"), "'dense', 'bitmask', 'csr'"),
        (put({"value": 1, "source": "them"}, "clock_mhz"), "clock_mhz: no source 'them' in sources; there is us"),
        (put(100, "clock_mhz"), r"clock_mhz: a constant is written as \{value: 200, source: paper\}"),
        (put({"value": "100", "source": "us"}, "clock_mhz"), "with the number in the key's unit"),
        (put({"value": -1, "source": "us"}, "clock_mhz"), "clock_mhz"),
        (put({"value": 0, "source": "us"}, "clock_mhz"), "clock_mhz is above 0"),
        (put(None, "clock_mhz"), "clock_mhz is missing"),
        (put(None, "array", "rows"), "dataflow weights-stationary lacks rows"),
        (put(ONE, "array", "lanes"), "dataflow weights-stationary has no lanes"),
        (put({"value": 2.5, "source": "us"}, "array", "rows"), "rows is a whole number from 1, got 2.5"),
        (put("skip", "array", "zero_weights"), "skipped by dataflow lanes only"),
        (put("4:2", "array", "pattern"), "N:M pattern"),
        (put(ONE, "array", "splits_to_bits"), "splits_to_bits is a whole number from 1, for dataflow lanes"),
        (lanes(serial_weight_bits=ONE, splits_to_bits=ONE), "bit-serial or split, not both"),
        (lanes(splits_to_bits={"value": 0.5, "source": "us"}), "splits_to_bits is a whole number from 1"),
        (lanes(splits_to_bits=ONE), "^(?!.)"),
        (put("outputs-stationary", "array", "dataflow"), "^(?!.)"),
        (put(True, "memories", 0, "holds_all_weights"), "has a size_kib"),
        (put(ONE, "memories", 0, "bandwidth_bytes_per_cycle"), "bandwidth is given twice"),
        (put("dram", "memories", 1, "name"), "two memories are called 'dram'"),
        (put([], "memories"), "memories"),
    ],
)
def test_what_is_wrong_is_one_sentence(change: Callable[[Any], None], sentence: str) -> None:
    values = yaml.safe_load(SMALL)
    change(values)
    if sentence == "^(?!.)":  # the other side: this one is right
        assert isinstance(machine_of(values), Machine)
        return
    with pytest.raises(RecipeError, match=sentence) as caught:
        machine_of(values)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("small: ")
    assert "Value error" not in str(caught.value)


def test_what_is_no_machine(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no machine 'eyeris'; did you mean 'eyeriss'"):
        machine_of("eyeris")
    with pytest.raises(FileError, match=r"gone\.yaml"):
        machine_of(tmp_path / "gone.yaml")
    for text, wrong in (("a: [", "not YAML"), ("- a", "holds list, not a machine"), ("a: 1\na: 2", "there twice")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(RecipeError, match=wrong):
            machine_of(tmp_path / "x.yaml")
