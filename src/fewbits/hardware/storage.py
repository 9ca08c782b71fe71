"""Bits that a layer's weights take in a memory, by how they lie there."""

from __future__ import annotations

from math import ceil, log2

import numpy as np
from torch import Tensor

from fewbits.hardware.dataflow import stored_rows
from fewbits.hardware.layers import Layer
from fewbits.hardware.machine import Machine, Storage


def weight_bits(layer: Layer, machine: Machine) -> int:
    """Bits of one weight that is not coded."""
    width = int(machine.numbers.weight_bits.value)
    return min(width, layer.bits) if machine.numbers.low_bit_weights else width


def stored_bits(layer: Layer, machine: Machine, storage: Storage) -> float:
    """Bits of all weights of a layer, with all that says where they stand.

    ======================= =================================================================
    dense                   every weight
    bitmask                 one bit for each, and those that are not zero
    csr                     those that are not zero, each with an index; a pointer for each output
    run-length              each with the zeros before it; a zero that ends each run which is too long
    pattern                 N of each M, each with its place among them; dense where a layer has no pattern
    entropy-coded           zero-order entropy of the levels; without levels, of the mask, and those that are not zero
    ======================= =================================================================
    """
    if not layer.stored:  # a value, which lies there as inputs do
        return layer.weights * machine.numbers.input_bits.value
    width = weight_bits(layer, machine)
    index = int(machine.numbers.index_bits.value) if machine.numbers.index_bits is not None else 0
    if storage is Storage.BITMASK:
        return layer.weights + layer.nonzero * width
    if storage is Storage.CSR:
        return layer.nonzero * (width + index) + (layer.outputs + 1) * ceil(log2(layer.nonzero + 1))
    if storage is Storage.RUNS:
        return run_entries(layer, index) * (width + index)
    if storage is Storage.PATTERN and machine.array.kept is not None and layer.follows(*machine.array.kept):
        kept, of = machine.array.kept
        return stored_rows(layer, kept, of, machine.array.blocks) * layer.outputs * (width + ceil(log2(of)))
    if storage is Storage.ENTROPY:
        if layer.entropy_bits is not None:
            return layer.entropy_bits * layer.weights
        shares = (layer.density, 1 - layer.density)
        return layer.nonzero * width - layer.weights * sum(p * log2(p) for p in shares if p)
    return float(layer.weights * width)


def run_entries(layer: Layer, index_bits: int) -> float:
    """Entries of a run-length code down the outputs of each input: weights that are not zero, and zeros between them.

    An index counts up to ``2**index_bits - 1`` zeros before an entry; a longer run is cut by an entry of zero (Han et
    al., EIE, section III). Without a mask, of zeros that are scattered at random.
    """
    longest = 2**index_bits
    if layer.mask is None:
        empty = (1 - layer.density) ** longest
        return layer.nonzero * (1 + empty / (1 - empty)) if layer.nonzero else 0.0
    key = ("runs", longest)
    if key not in layer.counted:
        layer.counted[key] = _fillers(layer.mask, longest)
    return layer.nonzero + int(layer.counted[key])


def _fillers(mask: Tensor, longest: int) -> int:
    """Zeros that are stored since ``longest`` of them follow each other; none behind the last weight of an input."""
    high = mask.shape[0]
    places = np.flatnonzero(mask.reshape(high, -1).T.numpy(force=True))
    before = np.empty_like(places)
    before[:1] = -1
    before[1:] = places[:-1]
    np.maximum(before, places // high * high - 1, out=before)  # of each input's first weight, the edge
    return int(((places - before - 1) // longest).sum())
