"""Executes steps in BFV modulo one prime, on ciphertexts: whole numbers, and nothing is rounded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from fewbits.private._seal import seal
from fewbits.private.steps import Machine


def centred(values: np.ndarray, modulus: int) -> list[int]:
    """Integers modulo a prime, between minus and plus half of it."""
    half = modulus // 2
    return [int((int(value) + half) % modulus - half) for value in values]


class ExactEvaluator(Machine):
    """A machine of :mod:`fewbits.private.steps`, without a secret key. Rescales and drops are nothing in BFV.

    Products with weights are made where polynomials are transformed; what is rotated or squared is transformed back.

    Args:
        context: SEAL's. modulus: the plain one. galois, relinearise: public keys.

    Attributes:
        counts: how often each operation was done, by its name.
    """

    def __init__(self, context: Any, modulus: int, galois: Any, relinearise: Any) -> None:
        s = self._seal = seal()
        self.modulus, self._galois, self._relinearise = modulus, galois, relinearise
        self._evaluator, self._encoder, self._context = s.Evaluator(context), s.BatchEncoder(context), context
        self._encoded: dict[tuple[int, bool], tuple[np.ndarray, Any]] = {}
        self._transformed: dict[int, tuple[Any, Any]] = {}
        self.counts: Counter[str] = Counter()

    def rotate(self, value: Any, step: int) -> Any:
        self.counts["rotate"] += 1
        found = self._seal.Ciphertext()
        self._evaluator.rotate_rows(self._plain(value), step, self._galois, found)
        return found

    def multiply(self, value: Any, vector: np.ndarray, scale: float) -> Any:
        self.counts["multiply"] += 1
        if id(value) not in self._transformed:
            there = self._seal.Ciphertext()
            self._evaluator.transform_to_ntt(value, there)
            self._transformed[id(value)] = value, there  # the value is kept, so that its identity stays its own
        found = self._seal.Ciphertext()
        self._evaluator.multiply_plain(self._transformed[id(value)][1], self._vector(vector, True), found)
        return found

    def add(self, left: Any, right: Any) -> Any:
        self.counts["add"] += 1
        found = self._seal.Ciphertext()
        if left.is_ntt_form() != right.is_ntt_form():
            left, right = self._plain(left), self._plain(right)
        self._evaluator.add(left, right, found)
        return found

    def add_vector(self, value: Any, vector: np.ndarray) -> Any:
        self.counts["add_vector"] += 1
        found = self._seal.Ciphertext()
        self._evaluator.add_plain(self._plain(value), self._vector(vector, False), found)
        return found

    def square(self, value: Any) -> Any:
        self.counts["square"] += 1
        found = self._seal.Ciphertext()
        self._evaluator.square(self._plain(value), found)
        self._evaluator.relinearize_inplace(found, self._relinearise)
        return found

    def rescale(self, value: Any, scale: float) -> Any:
        return self._plain(value)

    def drop(self, value: Any, level: int) -> Any:
        self._transformed.clear()  # of the layer before
        return value

    def _plain(self, value: Any) -> Any:
        if not value.is_ntt_form():
            return value
        found = self._seal.Ciphertext()
        self._evaluator.transform_from_ntt(value, found)
        return found

    def _vector(self, vector: np.ndarray, transformed: bool) -> Any:
        key = id(vector), transformed
        if key not in self._encoded:
            plain = self._seal.Plaintext()
            self._encoder.encode(centred(np.tile(vector, 2), self.modulus), plain)
            if transformed:
                self._evaluator.transform_to_ntt_inplace(plain, self._context.first_parms_id())
            self._encoded[key] = vector, plain
        return self._encoded[key][1]
