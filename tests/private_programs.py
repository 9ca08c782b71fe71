"""A small program of encrypted inference, with what the protocol needs and no network: squares of eight numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewbits.private.evaluator import Evaluator
from fewbits.private.parameters import Parameters
from fewbits.private.profile import Profile

SAMPLE = [i / 8 for i in range(1, 9)]
OUTPUTS = [x * x for x in SAMPLE]
_PARAMETERS = Parameters.of_bits(4096, (38, 30, 38))
_SLOTS = _PARAMETERS.slots


class Squares:
    """As :class:`fewbits.private.program.Program`. Two rotations, there and back, need their keys."""

    profile = Profile(
        parameters=_PARAMETERS,
        rotations=(4, _SLOTS - 4),
        relinearise=True,
        shape=(8,),
        input_slots=((*range(8), *[-1] * (_SLOTS - 8)),),
        input_scale=2.0**30,
        output_slots=tuple(range(8)),
        sentinel_slot=8,
        error=1e-3,
        limit=8.0,
    )

    def __init__(self) -> None:
        self._sentinel = np.zeros(_SLOTS)
        self._sentinel[8] = 1.0

    def run(self, evaluator: Evaluator, ciphertexts: Sequence[Any]) -> list[Any]:
        (value,) = ciphertexts
        evaluator.check_input(value, self.profile.input_scale)
        there, back = self.profile.rotations
        square = evaluator.square(evaluator.rotate(evaluator.rotate(value, there), back))
        low = evaluator.rescale(square, self.profile.input_scale**2 / _PARAMETERS.primes[1])
        return [evaluator.add_vector(low, self._sentinel)]


def small_program() -> Squares:
    return Squares()
