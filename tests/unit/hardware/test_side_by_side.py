"""Processors with vector registers, and loops that run side by side: cycles counted step by step."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import convolution

from fewbits.errors import RecipeError
from fewbits.hardware import Layer, Machine, machine_of, price
from fewbits.hardware.array import Registers, Unrolled
from fewbits.hardware.dataflow import unrolled, vectors

few = st.integers(1, 5)


def constants(**values: float) -> dict[str, Any]:
    return {key: {"value": value, "source": "us"} for key, value in values.items()}


def chunks(count: int, size: int) -> list[int]:
    """Sizes of the parts of a row."""
    return [min(size, count - start) for start in range(0, count, size)]


@given(few, few, few, few, few, few, st.sampled_from([1, 2]), few, few, st.booleans())
def test_vectors_step_by_step(
    wide: int, tall: int, positions: int, updates: int, products: int, latency: int, groups: int, outputs: int,
    inputs: int, fills: bool,
) -> None:  # fmt: skip
    layer = convolution(outputs * groups, inputs * groups, 3, 7, 5, groups=groups)
    held = Registers(
        **constants(
            vector=wide, vectors=tall, positions=positions, updates_per_cycle=updates, products_per_update=products,
            update_cycles=latency, cycles_per_copied_number=2, cycles_per_call=10,
        ),
        fills_inputs=fills,
    )  # fmt: skip
    depthwise = outputs == 1 and groups > 1
    cycles = 10.0 + (0 if depthwise else 2 * 25 * 9 * inputs * groups)
    channels = inputs
    while fills and inputs >= wide and channels % wide:
        channels += 1
    for _ in range(1 if depthwise else groups):
        together = chunks(groups, wide) if depthwise else chunks(outputs, wide * tall)
        for part, _, along in product(together, range(5), chunks(5, positions)):
            registers = len(chunks(part, wide))
            for _ in chunks(channels * 9, products):
                cycles += max(latency, registers * along / updates)
    work = vectors(layer, held)
    assert work.cycles == pytest.approx(cycles, abs=1)
    assert 0 < work.utilization <= 1 + 1e-9
    assert (work.weight_reads, work.output_writes) == (layer.weights, layer.output_numbers)


@given(few, few, few, few, st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
def test_unrolled_loops_one_by_one(
    k: int, c: int, rows: int, columns: int, outputs: int, inputs: int, groups: int
) -> None:
    layer = convolution(outputs * groups, inputs * groups, 3, 6, 4, groups=groups)
    work = unrolled(layer, Unrolled(**constants(outputs=k, inputs=c, rows=rows, columns=columns)))
    cycles = reads = macs = 0
    turns = product(range(groups), chunks(outputs, k), chunks(inputs, c), range(9), chunks(4, rows), chunks(4, columns))
    for _, some, deep, _, high, across in turns:
        cycles += 1
        reads += deep * high * across
        macs += some * deep * high * across
    assert (work.cycles, work.input_reads) == (cycles, reads)
    assert macs == layer.macs
    assert work.utilization == pytest.approx(macs / (cycles * k * c * rows * columns))


@given(few, few, st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_depthwise_channels_side_by_side(k: int, c: int, beside: int, channels: int, more: int) -> None:
    beside = min(beside, k * c)
    sides = Unrolled(**constants(outputs=k, inputs=c, rows=2, columns=1, depthwise=beside))
    work = unrolled(convolution(channels, channels, 3, 6, 4, groups=channels), sides)
    assert work.cycles == (len(chunks(channels, beside)) if channels > 1 else 1) * 9 * 2 * 4
    assert work.utilization <= 1
    several = convolution(more * 2 * channels, channels, 3, 6, 4, groups=channels)  # more than one output of a channel
    one_by_one = Unrolled(**constants(outputs=k, inputs=c, rows=2, columns=1))
    assert unrolled(several, sides).cycles == unrolled(several, one_by_one).cycles


def test_an_ethos_u85_takes_half_of_the_inputs_in_a_pattern() -> None:
    dense, machine = convolution(32, 64, 3, 10, 8), machine_of("ethos-u85-256")
    mask = (torch.arange(64) % 4 < 2)[None, :, None].expand(32, 64, 9).reshape(32, -1)
    patterned = replace(dense, mask=mask, nonzero=int(mask.sum()))
    scattered = replace(dense, mask=mask.flip(0).roll(1, 0).where(torch.arange(32)[:, None] > 0, True))
    assert cycles(patterned, machine) == 2 * 2 * 9 * 64
    assert cycles(dense, machine) == cycles(scattered, machine) == 2 * cycles(patterned, machine)


@pytest.mark.parametrize(
    ("machine", "most"),
    [("ethos-u55-128", 128), ("ethos-u65-256", 256), ("zen3", 16), ("zen3-int8", 32), ("edge-tpu", 1024)],
)
def test_no_layer_is_faster_than_all_multipliers(machine: str, most: int) -> None:
    described = machine_of(machine)
    assert described.array.multipliers == most
    layer = convolution(64, 64, 3, 18, 16)
    (priced,) = price([layer], described).layers
    assert priced.compute_cycles >= layer.macs / most
    assert priced.compute_cycles < 3 * layer.macs / most


def test_channels_beside_a_whole_vector_cost_as_much_as_the_next_one() -> None:
    machine = machine_of("zen3")
    seventeen, twenty_four, sixteen = (cycles(convolution(n, n, 3, 10, 8), machine) for n in (17, 24, 16))
    assert seventeen == twenty_four > sixteen


def cycles(layer: Layer, machine: Machine) -> float:
    return price([layer], machine).layers[0].compute_cycles


def described(**array: Any) -> dict[str, Any]:
    values = machine_of("edge-tpu").model_dump(mode="json", exclude_none=True)
    values["array"] = {key: value for key, value in {**values["array"], **array}.items() if value is not None}
    return values


SIDES = {key: {"value": 4, "source": "mapping"} for key in ("outputs", "inputs", "rows", "columns")}


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        ({"unrolled": None}, "dataflow unrolled lacks unrolled"),
        ({"dataflow": "vectors"}, "dataflow vectors lacks registers"),
        ({"lanes": SIDES["rows"]}, "dataflow unrolled has no lanes"),
        (
            {"unrolled": {**SIDES, "rows": {"value": 1.5, "source": "mapping"}}},
            "rows is a whole number from 1, got 1.5",
        ),
        (
            {"unrolled": {**SIDES, "depth": SIDES["rows"]}},
            r"array\.unrolled\.depth: no such key; did you mean.*; there is outputs",
        ),
        ({"zero_weights": "skip"}, "skipped by dataflow lanes only"),
        (
            {"unrolled": {**SIDES, "depthwise": {"value": 17, "source": "mapping"}}},
            "depthwise: 17 channels, but outputs and inputs have 16 multipliers side by side",
        ),
        (
            {"unrolled": {**SIDES, "depthwise": {"value": 0, "source": "mapping"}}},
            "depthwise is a whole number from 1, got 0",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(array: dict[str, Any], sentence: str) -> None:
    assert machine_of(described(unrolled=SIDES)).array.multipliers == 256
    with pytest.raises(RecipeError, match=sentence) as caught:
        machine_of(described(**array))
    assert "\n" not in str(caught.value)
