"""The same steps on plain numbers: what an encrypted program computes, without noise, slot by slot."""

from __future__ import annotations

import numpy as np


class Plain:
    """Values are float64 [..., slots]; levels and scales mean nothing here."""

    def rotate(self, value: np.ndarray, step: int) -> np.ndarray:
        return np.roll(value, -step, axis=-1)

    def multiply(self, value: np.ndarray, vector: np.ndarray, scale: float) -> np.ndarray:
        return value * vector

    def add(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left + right

    def add_vector(self, value: np.ndarray, vector: np.ndarray) -> np.ndarray:
        return value + vector

    def square(self, value: np.ndarray) -> np.ndarray:
        return value * value

    def product(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left * right

    def rescale(self, value: np.ndarray, scale: float) -> np.ndarray:
        return value

    def drop(self, value: np.ndarray, level: int) -> np.ndarray:
        return value
