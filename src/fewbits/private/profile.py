"""What a client needs to ask a program, and what a server may publish: parameters, keys, and where numbers lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, prod
from typing import Any

import numpy as np

from fewbits.errors import RecipeError
from fewbits.private.parameters import Parameters, strict_keys

SENTINEL = 1.0


@dataclass(frozen=True)
class Profile:
    """Nothing in it is secret. Of the weights it tells which rotations they need, and ranges.

    Attributes:
        parameters: of all ciphertexts and keys.
        rotations: slots to the left, each in 1..slots - 1; a program needs a Galois key for exactly these.
        relinearise: whether it needs a relinearisation key.
        shape: of a sample.
        input_slots: by ciphertext, by slot: which number of the flattened sample lies there; -1 for zero.
        input_scale: what an input is encoded with.
        output_slots: the slots of the answer that hold the outputs, in order. The answer is one ciphertext.
        sentinel_slot: a slot of the answer that holds 1: with a wrong key it does not.
        error: stated error of an output, absolute.
        limit: largest magnitude of an input that the error is stated for.
    """

    parameters: Parameters
    rotations: tuple[int, ...]
    relinearise: bool
    shape: tuple[int, ...]
    input_slots: tuple[tuple[int, ...], ...]
    input_scale: float
    output_slots: tuple[int, ...]
    sentinel_slot: int
    error: float
    limit: float

    def __post_init__(self) -> None:
        slots, size = self.parameters.slots, prod(self.shape)
        if not self.shape or not all(0 < side <= 2**20 for side in self.shape) or size > 2**24:
            raise RecipeError(f"a sample of shape {self.shape} cannot be packed")
        if not self.input_slots or not all(len(part) == slots for part in self.input_slots):
            raise RecipeError(f"input_slots are lists of {slots} numbers each")
        lying = {number for part in self.input_slots for number in part}
        if not lying <= set(range(-1, size)):
            raise RecipeError(f"input_slots lead to numbers of a sample, -1..{size - 1}")
        if not self.output_slots or len(set(self.output_slots)) != len(self.output_slots):
            raise RecipeError("output_slots are one slot or more, all of them different")
        if self.sentinel_slot in self.output_slots:
            raise RecipeError("the sentinel has a slot of its own")
        if not all(0 <= slot < slots for slot in (*self.output_slots, self.sentinel_slot)):
            raise RecipeError(f"output_slots and sentinel_slot are 0..{slots - 1}")
        if list(self.rotations) != sorted(set(self.rotations)) or not all(0 < r < slots for r in self.rotations):
            raise RecipeError(f"rotations increase, and are 1..{slots - 1}")
        for name in ("input_scale", "error", "limit"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise RecipeError(f"{name} is finite and positive, got {value}")

    @property
    def outputs(self) -> int:
        """How many there are."""
        return len(self.output_slots)

    def pack(self, sample: Any) -> list[np.ndarray]:
        """A sample's numbers in slots, float64 [slots] for each ciphertext.

        Args:
            sample: of ``shape``, or with a batch dimension of one before it.

        Raises:
            RecipeError: another shape, a number that is not finite, or one beyond ``limit``.
        """
        values = np.asarray(sample, dtype=np.float64)
        if values.shape == (1, *self.shape):
            values = values[0]
        if values.shape != self.shape:
            raise RecipeError(f"a sample has shape {self.shape}, got {values.shape}")
        if not np.isfinite(values).all():
            raise RecipeError("a sample has a number that is not finite")
        largest = float(np.abs(values).max())
        if largest > self.limit:
            raise RecipeError(
                f"a sample has a number of magnitude {largest:g}; this program takes {self.limit:g} at most"
            )
        flat = np.append(values.ravel(), 0.0)
        return [flat[np.array(part)] for part in self.input_slots]

    def unpack(self, slots: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
        """Outputs [outputs] and the sentinel's value, from the decrypted slots of the answer.

        Raises:
            RecipeError: not one list of as many numbers as a ciphertext has slots.
        """
        if len(slots) != 1 or np.shape(slots[0]) != (self.parameters.slots,):
            raise RecipeError(f"an answer is one list of {self.parameters.slots} numbers")
        values = np.asarray(slots[0], dtype=np.float64)
        return values[list(self.output_slots)], float(values[self.sentinel_slot])

    def sound(self, sentinel: float) -> bool:
        """Whether the sentinel's value is what a right key gives."""
        return bool(abs(sentinel - SENTINEL) <= max(0.25, 2 * self.error))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "parameters": self.parameters.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """From plain data of somebody else, as JSON gives it.

        Raises:
            RecipeError: unknown, missing or wrong keys, or weak parameters.
        """
        strict_keys(cls, values, "profile")
        found = dict(values)
        found["parameters"] = Parameters.from_dict(values["parameters"])
        for name in ("rotations", "shape", "output_slots"):
            found[name] = _whole(values[name], name)
        if not isinstance(values["input_slots"], list | tuple) or len(values["input_slots"]) > 64:
            raise RecipeError("profile: input_slots is a list of at most 64 lists")
        found["input_slots"] = tuple(_whole(part, "input_slots") for part in values["input_slots"])
        if type(values["relinearise"]) is not bool or type(values["sentinel_slot"]) is not int:
            raise RecipeError("profile: relinearise is true or false, and sentinel_slot a whole number")
        for name in ("input_scale", "error", "limit"):
            if type(values[name]) not in (int, float):
                raise RecipeError(f"profile: {name} is a number")
            found[name] = float(values[name])
        return cls(**found)


def _whole(values: Any, name: str) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) > 2**16 or not all(type(value) is int for value in values):
        raise RecipeError(f"profile: {name} is a list of whole numbers")
    return tuple(values)
