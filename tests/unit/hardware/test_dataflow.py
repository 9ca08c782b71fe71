"""Cycles and accesses, against published counts and against a schedule that is walked through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made import convolution, product

from fewbits.hardware import Known, Layer
from fewbits.hardware.dataflow import Kept, lanes, row_stationary, stored_rows, systolic

PUBLISHED = json.loads((Path(__file__).parent / "published" / "eyeriss_v2.json").read_text())

# scalesim-project/scale-sim-v3, test/: total cycles less stalls, reads of filters and inputs, writes of outputs.
ALEXNET = convolution(96, 3, 11, 224, 55, stride=4)  # 224 -> 54.25, counted as 55
GEMM = product(128, 256, 256)
GOLDEN = {
    "golden_trace_calc": (ALEXNET, "weights", 112_283, 34_848, 3_294_225, 3_484_800),
    "golden_trace_user_ws": (GEMM, "weights", 52_447 - 41_248, 32_768, 262_144, 262_144),
    "golden_trace_user_is": (GEMM, "inputs", 19_984 - 5_777, 262_144, 65_536, 262_144),
    # SCALE-Sim adds the sides of the array to the writes of each of 32 folds; the outputs are 32,768.
    "golden_trace_user_os": (GEMM, "outputs", 52_447 - 42_272, 262_144, 262_144, 34_816 - 32 * (32 + 32)),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_scale_sim_golden_cases(case: str) -> None:
    layer, stationary, *wanted = GOLDEN[case]
    work = systolic(layer, 32, 32, stationary)
    assert [work.cycles, work.weight_reads, work.input_reads, work.output_writes] == wanted


def test_scale_sim_golden_utilization() -> None:
    assert 100 * systolic(ALEXNET, 32, 32, "weights").utilization == pytest.approx(91.68309650614964, abs=1e-12)


def test_scale_sim_golden_pattern() -> None:
    """test/sparsity: 4 of 8, blocks stored in pairs, on 128 x 128."""
    stored = stored_rows(ALEXNET, 4, 8, multiple=2)
    assert stored * ALEXNET.outputs == 17_664
    work = systolic(ALEXNET, 128, 128, "weights", stored)
    assert (work.cycles, work.weight_reads, work.output_writes) == (173_949 - 167_136, 17_664, 580_800)


@pytest.mark.parametrize("stationary", ["weights", "inputs", "outputs"])
@pytest.mark.parametrize(("rows", "columns", "groups"), [(2, 3, 1), (4, 2, 2), (5, 7, 1)])
def test_cycles_are_those_of_a_schedule(stationary: str, rows: int, columns: int, groups: int) -> None:
    """Every multiplier is a cycle later than its neighbours; the last product of a fold ends it."""
    layer = convolution(6, 4, 2, 4, 3, groups=groups)
    sizes = {"outputs": 6 // groups, "reduction": 4 // groups * 4, "positions": 9}
    down, across = {
        "weights": ("reduction", "outputs"),
        "inputs": ("reduction", "positions"),
        "outputs": ("positions", "outputs"),
    }[stationary]
    (steps,) = set(sizes) - {down, across}
    load = 0 if stationary == "outputs" else rows
    clock = 0
    for _ in range(groups):
        for _ in range(0, sizes[down], rows):
            for _ in range(0, sizes[across], columns):
                ends = [load + t + r + c + 1 for t in range(sizes[steps]) for r in range(rows) for c in range(columns)]
                clock += max(ends)
    assert systolic(layer, rows, columns, stationary).cycles == clock - 1  # counted from zero, as SCALE-Sim does


# Sparseloop's artifact, table7_eyeriss_setup/dense_outputs: AlexNet's convolutions, four images, as it has their sizes.
TABLE_7 = [
    (convolution(96, 3, 11, 231, 56, stride=4), 2_838_528),
    (convolution(256, 48, 5, 32, 28), 6_881_280),
    (convolution(384, 256, 3, 15, 13), 3_833_856),
    (convolution(384, 192, 3, 15, 13), 2_875_392),
    (convolution(256, 192, 3, 15, 13), 1_916_928),
]


@pytest.mark.parametrize(("layer", "cycles"), TABLE_7)
def test_eyeriss_cycles_of_sparseloops_table_7(layer: Layer, cycles: int) -> None:
    assert 4 * row_stationary(layer, 12, 14, Kept(12, 224, 24)).cycles == cycles


def test_a_multiplier_that_keeps_more_reads_less() -> None:
    layer = TABLE_7[2][0]
    small, large = (row_stationary(layer, 12, 14, kept) for kept in (Kept(3, 9, 1), Kept(12, 224, 24)))
    assert small.cycles == large.cycles
    assert small.input_reads + small.output_writes > 2 * (large.input_reads + large.output_writes)
    # By hand: a multiplier keeps one filter and one channel; of four sets two share an input, two an output.
    assert (small.input_reads, small.output_writes) == (256 * 225 * 384 // 2, 384 * 169 * 256 // 2)
    assert small.partial_reads == small.output_writes - 384 * 169


def masked(name: str) -> Layer:
    """A layer of published zeros: how many of each input channel, in any order."""
    found = PUBLISHED["layers"][name]
    pairs = list(zip(found["inputs"], found["weights"], strict=True))
    layer = product(found["outputs"], len(pairs), found["positions"])
    return replace(
        layer, products=float(sum(a * w for a, w in pairs)), nonzero=sum(w for _, w in pairs),
        weights_known=Known.COUNTED, inputs_known=Known.COUNTED,
    )  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED["layers"])
def test_eyeriss_v2_cycles_of_real_zeros(name: str) -> None:
    layer = masked(name)
    assert lanes(layer, 1, layer.products).cycles == PUBLISHED["cycles"][name]


def test_eyeriss_v2_mean_error_over_all_layers() -> None:
    """Of layers without published zeros only Sparseloop's densities are known: its cycles are their product."""
    wanted = PUBLISHED["cycles"]
    found = {name: masked(name).products if name in PUBLISHED["layers"] else PUBLISHED["sparseloop_cycles"][name]
             for name in wanted}  # fmt: skip
    errors = [abs(found[name] - wanted[name]) / wanted[name] for name in wanted]
    assert len(errors) == 28
    assert sum(errors) / 28 == pytest.approx(0.0012, abs=5e-5)
    theirs = [abs(PUBLISHED["sparseloop_cycles"][name] - wanted[name]) / wanted[name] for name in wanted]
    assert sum(theirs) / 28 == pytest.approx(0.0111, abs=5e-5)


@pytest.mark.parametrize("name", PUBLISHED["layers"])
def test_densities_give_sparseloops_cycles(name: str) -> None:
    """Its densities have two digits, and its cycles are rounded up."""
    weights, inputs = (PUBLISHED["layers"][name]["densities"][i] for i in (1, 0))
    layer = masked(name)
    cycles = lanes(layer, 1, layer.macs * weights * inputs).cycles
    assert cycles == pytest.approx(PUBLISHED["sparseloop_cycles"][name], abs=2)
