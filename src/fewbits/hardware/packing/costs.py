"""Milliseconds of each operation on ciphertexts, by how many primes are left, and what a layer's choice comes to."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from fewbits.hardware.packing.shifts import Split


@dataclass(frozen=True)
class Times:
    """Of one operation each, for a degree of 2^13; twice as long, and a little more, for twice the degree.

    A rotation transforms each prime of the ciphertext for each other, hence the square of their number.
    """

    rotate: tuple[float, float, float] = (0.25, 0.38, 0.12)  # of 1, primes, and primes squared
    multiply: float = 0.065  # with its addition
    rescale: float = 0.2

    def rotation(self, primes: int) -> float:
        """One rotation of a ciphertext with so many primes."""
        return self.rotate[0] + self.rotate[1] * primes + self.rotate[2] * primes * primes


TIMES = Times()


def layer_cost(split: Split, folds: int, primes: int, after: int, times: Times = TIMES) -> float:
    """Of one layer: babies, giants, folds and products. ``after``: primes that are left at the folds."""
    turns = split.rotations * times.rotation(primes) + folds * times.rotation(after)
    return turns + split.products * times.multiply * primes + times.rescale * primes


def least_cost(shifts: int, primes: int, times: Times = TIMES) -> float:
    """No split of so many shifts costs less: b babies and g giants make (b + 1) (g + 1) of them at most."""
    turns = max(0, ceil(2 * sqrt(shifts)) - 2)
    return turns * times.rotation(primes) + shifts * times.multiply * primes
