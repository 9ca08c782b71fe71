"""How far decrypted numbers are off: variances of every source of noise, carried through a program's steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import sqrt

import numpy as np

from fewbits.private.parameters import Parameters

DEVIATION = 3.2  # of fresh errors in SEAL
SIGMAS = 6.0  # how many deviations are stated


@dataclass(frozen=True)
class Noisy:
    """Slots of some samples, float64 [samples, slots], and the variance of the noise in each of them."""

    values: np.ndarray
    variance: np.ndarray
    scale: float
    level: int


class Noise:
    """Executes steps on values with variances.

    Coefficients' errors of variance v are errors of variance v N / 2 in the real part of a slot, over the square of the
    scale.
    Rounding has v = 1/12; what is rounded in a ciphertext meets a ternary secret of about 2 N / 3 ones. Decomposed
    digits are taken as uniform (Kim, Papadimitriou and Polyakov, ePrint 2020/1118, section 3, on average). SEAL's are
    not centred: their mean, half a prime, meets the same errors in each rotation, and that falls on the first slots.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._half = parameters.degree / 2
        self._rounding = self._half / 12
        self._secret = self._half * (1 + 2 * parameters.degree / 3) / 12
        self._ones = _ones(parameters.degree)

    def fresh(self, values: np.ndarray, scale: float) -> Noisy:
        """Inputs as a client encrypts them with its secret key."""
        variance = (self._half * DEVIATION**2 + self._rounding) / scale**2
        return Noisy(values, np.full(values.shape, variance), scale, self.parameters.levels)

    def rotate(self, value: Noisy, step: int) -> Noisy:
        variance = np.roll(value.variance, -step, axis=-1) + self._switched(value.level) / value.scale**2
        return Noisy(np.roll(value.values, -step, axis=-1), variance, value.scale, value.level)

    def multiply(self, value: Noisy, vector: np.ndarray, scale: float) -> Noisy:
        power = value.values**2 + value.variance
        variance = value.variance * vector**2 + power * self._rounding / scale**2
        return Noisy(value.values * vector, variance, value.scale * scale, value.level)

    def add(self, left: Noisy, right: Noisy) -> Noisy:
        return Noisy(left.values + right.values, left.variance + right.variance, left.scale, left.level)

    def add_vector(self, value: Noisy, vector: np.ndarray) -> Noisy:
        variance = value.variance + self._rounding / value.scale**2
        return Noisy(value.values + vector, variance, value.scale, value.level)

    def square(self, value: Noisy) -> Noisy:
        scale = value.scale**2
        variance = value.variance * (4 * value.values**2 + 2 * value.variance)
        return Noisy(value.values**2, variance + self._switched(value.level) / scale**2, scale, value.level)

    def product(self, left: Noisy, right: Noisy) -> Noisy:
        scale = left.scale * right.scale
        variance = left.variance * (right.values**2 + right.variance)
        variance = variance + right.variance * left.values**2 + self._switched(left.level) / scale**2
        return Noisy(left.values * right.values, variance, scale, left.level)

    def rescale(self, value: Noisy, scale: float) -> Noisy:
        return Noisy(value.values, value.variance + self._secret / scale**2, scale, value.level - 1)

    def drop(self, value: Noisy, level: int) -> Noisy:
        return Noisy(value.values, value.variance, value.scale, level)

    def _switched(self, level: int) -> np.ndarray:
        """Of a rotation or a relinearisation: digits times fresh errors, over the last prime, and its rounding."""
        *primes, last = self.parameters.primes
        digits = sum((prime / last) ** 2 for prime in primes[: level + 1])
        error = self._half * DEVIATION**2 * digits
        return error * (self.parameters.degree / 12 + self._ones / 4) + self._secret


@cache
def _ones(degree: int) -> np.ndarray:
    """All coefficients one, in each slot: ``|1 + X + ... + X^(N - 1)|^2 = |2 / (1 - X)|^2`` at the slot's root."""
    exponents = [1]
    for _ in range(degree // 2 - 1):
        exponents.append(3 * exponents[-1] % (2 * degree))
    return np.asarray(1 / np.sin(np.pi * np.array(exponents) / (2 * degree)) ** 2)


def stated(value: Noisy, slots: tuple[int, ...]) -> float:
    """The error that is stated of outputs in these slots: of the noisiest one, of the noisiest sample."""
    return SIGMAS * sqrt(float(value.variance[:, list(slots)].max()))
