"""Polynomials of low degree in place of an activation, in the form that costs the fewest levels."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from fewbits.approximation import Approximation
from fewbits.ops._proof import middles


@dataclass(frozen=True)
class Polynomial:
    """``sum_k coefficients[k] * x ** k``, of degree 1 to 4."""

    coefficients: tuple[float, ...]

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.coefficients) - 1

    def __call__(self, x: float) -> float:
        value = 0.0
        for coefficient in reversed(self.coefficients):
            value = value * x + coefficient
        return value

    def depressed(self) -> tuple[float, tuple[float, ...]]:
        """A shift s and coefficients c without the second highest power: ``P(x) = sum_k c[k] (x + s)^k``."""
        top = self.coefficients[-1]
        shift = self.coefficients[-2] / (self.degree * top)
        moved = [0.0] * len(self.coefficients)
        for power, coefficient in enumerate(self.coefficients):  # x = u - shift
            for low in range(power + 1):
                moved[low] += coefficient * comb(power, low) * (-shift) ** (power - low)
        moved[-2] = 0.0
        return shift, tuple(moved)


def polynomial_of(found: Approximation) -> Polynomial | None:
    """An approximation as one polynomial of degree 1 to 4, or ``None`` where it is something else."""
    pieces = found.pieces
    if found.kind != "polynomial" or pieces is None or found.reduced or len(pieces.coefficients) != 1:
        return None
    row = pieces.coefficients[0]
    middle = float(middles(pieces)[0])
    plain = [0.0] * len(row)
    for power, coefficient in enumerate(row):
        for low in range(power + 1):
            plain[low] += coefficient / pieces.scale**power * comb(power, low) * (-middle) ** (power - low)
    while len(plain) > 2 and plain[-1] == 0.0:
        plain.pop()
    return Polynomial(tuple(plain)) if 2 <= len(plain) <= 5 else None
