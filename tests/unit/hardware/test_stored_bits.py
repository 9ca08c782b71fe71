"""Bits of weights in memory, against codes that are written out."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

import pytest
import torch
from made import product

from fewbits.hardware import Layer, Machine, Storage, machine_of
from fewbits.hardware.storage import run_entries, stored_bits


@pytest.fixture
def machine() -> Machine:
    stc = machine_of("stc")
    return stc.model_copy(
        update={"numbers": stc.numbers.model_copy(update={"index_bits": stc.clock_mhz.model_copy(update={"value": 2})})}
    )


def masked(density: float, outputs: int = 37, inputs: int = 24, seed: int = 0) -> Layer:
    mask = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed)) < density
    return replace(product(outputs, inputs, 1), mask=mask, nonzero=int(mask.sum()))


def written_out(layer: Layer, longest: int) -> int:
    """Entries of a run-length code, column by column, as EIE writes it."""
    assert layer.mask is not None
    entries = 0
    for column in layer.mask.T.tolist():
        zeros = waiting = 0
        for kept in column:
            if kept:
                entries += 1 + waiting
                zeros = waiting = 0
            else:
                zeros += 1
                if zeros == longest:  # the last of them is stored as an entry, if another weight follows
                    waiting, zeros = waiting + 1, 0
    return entries


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_runs_are_those_of_a_loop(density: float, bits: int) -> None:
    layer = masked(density)
    assert run_entries(layer, bits) == written_out(layer, 2**bits)


def test_runs_of_a_density_are_those_of_random_zeros() -> None:
    layer = masked(0.09, 4096, 100)
    share = replace(layer, mask=None, nonzero=0.09 * layer.weights)
    assert run_entries(share, 4) == pytest.approx(run_entries(layer, 4), rel=0.02)
    assert run_entries(replace(share, nonzero=0), 4) == 0


def test_bits_by_hand(machine: Machine) -> None:
    mask = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]]).bool()
    layer = replace(product(2, 4, 1), mask=mask, nonzero=2)
    assert stored_bits(layer, machine, Storage.DENSE) == 8 * 8
    assert stored_bits(layer, machine, Storage.BITMASK) == 8 + 2 * 8
    assert stored_bits(layer, machine, Storage.CSR) == 2 * (8 + 2) + 3 * ceil(log2(3))
    assert stored_bits(layer, machine, Storage.RUNS) == 2 * (8 + 2)
    assert stored_bits(layer, machine, Storage.PATTERN) == 2 * 2 * (8 + 2), "two of four, each with two bits of place"
    assert stored_bits(layer, machine, Storage.ENTROPY) == pytest.approx(8 * (0.25 * 2 + 0.75 * log2(4 / 3)) + 2 * 8)
    levels = replace(layer, entropy_bits=0.5, bits=4)
    assert stored_bits(levels, machine, Storage.ENTROPY) == 4
    assert stored_bits(levels, machine, Storage.DENSE) == 64, "the machine has no low-bit weights"
    narrow = machine.model_copy(update={"numbers": machine.numbers.model_copy(update={"low_bit_weights": True})})
    assert stored_bits(levels, narrow, Storage.DENSE) == 32


def test_a_layer_without_the_pattern_lies_dense(machine: Machine) -> None:
    layer = replace(product(1, 4, 1), mask=torch.tensor([[True, True, True, False]]), nonzero=3)
    assert stored_bits(layer, machine, Storage.PATTERN) == stored_bits(layer, machine, Storage.DENSE)
