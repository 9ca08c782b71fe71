"""From a network of integers to steps in slots, and to parameters that hold its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbits.errors import UnsupportedError
from fewbits.private._laid import Arrangement, Map
from fewbits.private.arrange import arranged
from fewbits.private.exact.keys import ExactKeys
from fewbits.private.exact.network import IntegerNetwork
from fewbits.private.exact.parameters import EXACT_DEGREES, ExactParameters, candidates, refused
from fewbits.private.read import INPUT
from fewbits.private.steps import Affine, Part, Square, Step, execute, rotations
from fewbits.private.vectors import in_slots

PRIMES = 5  # that layouts are chosen for: products and rotations then have about the relation they have in BFV


@dataclass(frozen=True, eq=False)
class ExactProgram:
    """An integer network as steps on ciphertexts, which every machine executes.

    Attributes:
        network: whose integers it computes. parameters: of its ciphertexts. steps: in order.
        input_slots: which number of a sample lies in each slot, -1 for none. output_slots: where outputs lie.
    """

    network: IntegerNetwork
    parameters: ExactParameters
    steps: tuple[Step, ...]
    input_slots: np.ndarray
    output_slots: tuple[int, ...]

    @property
    def rotations(self) -> tuple[int, ...]:
        """Steps that need a Galois key."""
        return rotations(self.steps)

    def keys(self) -> ExactKeys:
        """New keys of a client."""
        return ExactKeys(self.parameters, self.rotations)

    def packed(self, integers: np.ndarray) -> np.ndarray:
        """A sample's integers [numbers] in slots."""
        return np.append(integers, 0)[self.input_slots]

    def run(self, keys: ExactKeys, ciphertexts: list[Any]) -> list[Any]:
        """Encrypted answers, modulus by modulus; only the evaluators of ``keys`` are used."""
        last = self.steps[-1].target
        return [
            execute(self.steps, evaluator, {INPUT: value})[last]
            for evaluator, value in zip(keys.evaluators, ciphertexts, strict=True)
        ]

    def outputs(self, slots: np.ndarray) -> np.ndarray:
        """The network's integers from an answer's slots, object [outputs]."""
        return np.array([int(slots[slot]) for slot in self.output_slots], dtype=object)


def compile_exact(network: IntegerNetwork, degree: int | None = None) -> ExactProgram:
    """The program with the least predicted time whose outputs are exact for every input that the network takes.

    Intermediate integers may wrap around the plain moduli: sums and products stay right modulo them. So only outputs
    have to fit, by the ranges of all inputs.

    Args:
        degree: of the ring; else the one with the least predicted time.

    Raises:
        UnsupportedError: outputs that no parameters hold, or a layer that does not fit the slots.
    """
    ranges = network.ranges()
    _, low, high = ranges[-1]
    span = 2 * max(abs(low), abs(high)) + 1  # integers come out around zero
    squares = sum(layer.squared for layer in network.layers)
    best: tuple[float, ExactParameters, Arrangement] | None = None
    wide: UnsupportedError | None = None
    for one in EXACT_DEGREES if degree is None else (degree,):
        offered = candidates(one, span, len(network.layers), squares)
        if not offered:
            continue
        try:
            arrangement = _arranged(network, one // 2)
        except UnsupportedError as caught:
            wide = caught
            continue
        for parameters in offered:
            cost = arrangement.cost * len(parameters.moduli) * one * len(parameters.ring.primes) ** 2
            if best is None or cost < best[0]:
                best = cost, parameters, arrangement
    if best is None:
        raise wide or refused(ranges)
    return _program(network, best[1], best[2])


def _arranged(network: IntegerNetwork, slots: int) -> Arrangement:
    steps: list[Map | tuple[str, str]] = []
    source, count = INPUT, len(network.layers)
    for place, layer in enumerate(network.layers):
        last = place == count - 1
        matrices = {source: layer.matrix.astype(np.float64)}
        steps.append(Map(_name(place), layer.where, matrices, np.zeros(len(layer.bias)), PRIMES, PRIMES, last))
        if layer.squared:
            steps.append((f"{_name(place)}.square", _name(place)))
            source = f"{_name(place)}.square"
        else:
            source = _name(place)
    return arranged(tuple(steps), slots)


def _program(network: IntegerNetwork, parameters: ExactParameters, arrangement: Arrangement) -> ExactProgram:
    steps: list[Step] = []
    slots: tuple[int, ...] = ()
    for place, (laid, layer) in enumerate(zip(arrangement.maps, network.layers, strict=True)):
        found = in_slots(laid)
        layout = laid.spread.layout()
        bias = np.append(layer.bias, 0)[np.where(layout.numbers >= 0, layout.numbers, len(layer.bias))]
        parts = tuple(Part(name, 1.0, terms, found.before[name]) for name, terms in found.terms.items())
        steps.append(Affine(_name(place), parts, found.folds, bias if any(bias) else None, 0, 1.0, True))
        if layer.squared:
            steps.append(Square(f"{_name(place)}.square", _name(place), 0, 1.0))
        slots = found.slots
    return ExactProgram(network, parameters, tuple(steps), arrangement.layouts[INPUT].numbers, slots)


def _name(place: int) -> str:
    return f"layer {place}"
