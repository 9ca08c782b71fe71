"""A program's steps: data that any machine can execute, on ciphertexts as on plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fewbits.errors import UnsupportedError


class Machine(Protocol):
    """What executes steps: SEAL, NumPy, or an estimate of noise."""

    def rotate(self, value: Any, step: int) -> Any: ...
    def multiply(self, value: Any, vector: np.ndarray, scale: float) -> Any: ...
    def add(self, left: Any, right: Any) -> Any: ...
    def add_vector(self, value: Any, vector: np.ndarray) -> Any: ...
    def square(self, value: Any) -> Any: ...

    def product(self, left: Any, right: Any) -> Any:
        """Of two values; a machine whose programs have squares only does without."""
        raise UnsupportedError("this machine has squares, and no products of two values; CKKS has both")

    def rescale(self, value: Any, scale: float) -> Any: ...
    def drop(self, value: Any, level: int) -> Any: ...


@dataclass(frozen=True, eq=False)
class Part:
    """One source of an affine step.

    Attributes:
        source: the value that it reads. scale: what its vectors are encoded with.
        terms: by giant, the babies and their vectors, float64 [slots], each already rotated back by the giant.
        folds: rotations of the source that are added to it before all that, one after the other.
    """

    source: str
    scale: float
    terms: tuple[tuple[int, tuple[tuple[int, np.ndarray], ...]], ...]
    folds: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Affine:
    """Sums of rotated values times vectors, then folds, then a bias.

    Attributes:
        target: the value that it makes. level: at which products are made. scale: of the result.
        rescale: one prime is dropped before the folds.
        folds: rotations that are added, one after the other. bias: float64 [slots], or ``None`` for none.
    """

    target: str
    parts: tuple[Part, ...]
    folds: tuple[int, ...]
    bias: np.ndarray | None
    level: int
    scale: float
    rescale: bool


@dataclass(frozen=True)
class Square:
    """``target = source ** 2``, or ``source * other``, relinearised and rescaled; ``scale`` is that of the result."""

    target: str
    source: str
    level: int
    scale: float
    other: str | None = None


@dataclass(frozen=True, eq=False)
class Offset:
    """``target = source + vector``, at the source's level and scale."""

    target: str
    source: str
    vector: np.ndarray


Step = Affine | Square | Offset


def execute(steps: tuple[Step, ...], machine: Machine, values: Mapping[str, Any]) -> dict[str, Any]:
    """All steps in order; returns every value by name."""
    found = dict(values)
    for step in steps:
        if isinstance(step, Offset):
            found[step.target] = machine.add_vector(found[step.source], step.vector)
        elif isinstance(step, Square):
            source = machine.drop(found[step.source], step.level)
            if step.other is None:
                squared = machine.square(source)
            else:
                squared = machine.product(source, machine.drop(found[step.other], step.level))
            found[step.target] = machine.rescale(squared, step.scale)
        else:
            found[step.target] = _affine(step, machine, found)
    return found


def _affine(step: Affine, machine: Machine, values: Mapping[str, Any]) -> Any:
    total: Any = None
    for part in step.parts:
        source = machine.drop(values[part.source], step.level)
        for fold in part.folds:
            source = machine.add(source, machine.rotate(source, fold))
        turned: dict[int, Any] = {0: source}
        for giant, babies in part.terms:
            inner: Any = None
            for baby, vector in babies:
                if baby not in turned:
                    turned[baby] = machine.rotate(source, baby)
                product = machine.multiply(turned[baby], vector, part.scale)
                inner = product if inner is None else machine.add(inner, product)
            if giant:
                inner = machine.rotate(inner, giant)
            total = inner if total is None else machine.add(total, inner)
    if step.rescale:
        total = machine.rescale(total, step.scale)
    for fold in step.folds:
        total = machine.add(total, machine.rotate(total, fold))
    return total if step.bias is None else machine.add_vector(total, step.bias)


def rotations(steps: tuple[Step, ...]) -> tuple[int, ...]:
    """Every rotation that some step makes."""
    found: set[int] = set()
    for step in steps:
        if isinstance(step, Affine):
            found.update(step.folds)
            for part in step.parts:
                found.update(part.folds)
                found.update(giant for giant, _ in part.terms)
                found.update(baby for _, babies in part.terms for baby, _ in babies)
    return tuple(sorted(found - {0}))
