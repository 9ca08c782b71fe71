"""A network as a program on ciphertexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewbits.errors import RecipeError
from fewbits.private.counts import counts_of
from fewbits.private.evaluator import Evaluator
from fewbits.private.plain import Plain
from fewbits.private.profile import Profile
from fewbits.private.read import INPUT
from fewbits.private.steps import Step, execute

CHUNK = 64  # samples that go through all steps together


@dataclass(frozen=True, eq=False)
class Program:
    """What a server runs. It holds weights; ``profile`` is what a client needs.

    Attributes:
        steps: in order. profile: parameters, keys, and where numbers lie.
    """

    steps: tuple[Step, ...]
    profile: Profile

    def run(self, evaluator: Evaluator, ciphertexts: Sequence[Any]) -> list[Any]:
        """The encrypted answer to an encrypted input, one ciphertext.

        Raises:
            RecipeError: ciphertexts that no client of this program makes, or a key that is missing.
        """
        wanted = len(self.profile.input_slots)
        if len(ciphertexts) != wanted:
            raise RecipeError(f"an input is {wanted} ciphertext{'s' * (wanted != 1)}, got {len(ciphertexts)}")
        if evaluator.parameters != self.profile.parameters:
            raise RecipeError("the evaluator has other parameters than the program")
        evaluator.require(self.profile.rotations, self.profile.relinearise)
        for ciphertext in ciphertexts:
            evaluator.check_input(ciphertext, self.profile.input_scale)
        values = execute(self.steps, evaluator, {INPUT: ciphertexts[0]})
        return [values[self.steps[-1].target]]

    @property
    def counts(self) -> Counter[tuple[str, int]]:
        """Operations by name and level of their operand, predicted from the steps; an evaluator counts the same."""
        return counts_of(self.steps, self.profile.parameters.levels)

    def slots(self, samples: Any) -> np.ndarray:
        """All slots of the answers to plain samples [n, ...], float64 [n, slots]: the same arithmetic without noise."""
        packed = np.stack([self.profile.pack(sample)[0] for sample in np.asarray(samples, dtype=np.float64)])
        return execute(self.steps, Plain(), {INPUT: packed})[self.steps[-1].target]

    def plain(self, samples: Any) -> np.ndarray:
        """Outputs of plain samples [n, ...], float64 [n, outputs]."""
        wanted, found = list(self.profile.output_slots), []
        for start in range(0, len(samples), CHUNK):  # all slots of all steps are in memory
            found.append(self.slots(samples[start : start + CHUNK])[:, wanted])
        return np.concatenate(found)
