"""What assigners remember: one immutable record per layer, of a type that each family has for itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import prod
from typing import Any, Self

import numpy as np
from torch import Tensor

from fewbits.errors import DataError, NonFiniteError, RecipeError, SelectionError, did_you_mean


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerState:
    """What every record of a layer has. A family that remembers more adds fields in a frozen dataclass of its own.

    Fields are plain values, tensors, or records of other assigners. One that is called ``step`` (a number) or
    ``codebook`` (a tuple) can be learnt: training hands it back by :func:`with_steps` or :func:`with_codebooks`.

    Attributes:
        sparsity: share of zeros of the last assignment, in 0..1; ``None`` before, or where it is not counted.
    """

    sparsity: float | None = None

    @property
    def mask(self) -> Tensor | None:
        """Bool, of the weight's shape: where it is false, the weight is zero and stays so. ``None``: nothing does."""
        return None

    def packed(self) -> dict[str, Any]:
        """The fields as plain values and tensors, for a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: v.packed() if isinstance(v, LayerState) else v for name, v in values.items()}

    def unpacked(self, values: Mapping[str, Any]) -> Self:
        """A record like this one with the fields that :meth:`packed` gave.

        Raises:
            DataError: another family's fields.
        """
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        if mine.keys() != values.keys():
            raise DataError(f"a record of {sorted(values)} is no {type(self).__name__}, which has {sorted(mine)}")
        inner = {name: v.unpacked(values[name]) for name, v in mine.items() if isinstance(v, LayerState)}
        return type(self)(**{**values, **inner})

    def tensors(self, shape: Sequence[int]) -> list[Tensor]:
        """What the record has for each element of a weight of this shape, inner records included; only floats."""
        found: list[Tensor] = []
        for value in (getattr(self, field.name) for field in fields(self)):
            if isinstance(value, LayerState):
                found += value.tensors(shape)
            elif isinstance(value, Tensor) and value.is_floating_point() and value.numel() == prod(shape):
                found.append(value)
        return found

    def of_rows(self, rows: Tensor, shape: Sequence[int]) -> Self:
        """The record for these rows (int64 indices of the first dimension) of a weight of this shape."""

        def some(value: Any) -> Any:
            if isinstance(value, LayerState):
                return value.of_rows(rows, shape)
            if not isinstance(value, Tensor) or value.numel() != prod(shape):
                return value
            taken = value.reshape(tuple(shape)).index_select(0, rows.to(value.device))
            return taken.reshape(-1) if value.dim() == 1 else taken

        return type(self)(**{field.name: some(getattr(self, field.name)) for field in fields(self)})

    def with_step(self, name: str, step: float) -> Self:
        """The record with a step that was learnt: a positive float32 number. ``name``: of the layer, for errors."""
        if not hasattr(self, "step"):
            raise SelectionError(f"layer {name!r} has no step size that could be learnt")
        return type(self)(**{**vars(self), "step": step})

    def with_codebook(self, name: str, codebook: tuple[float, ...]) -> Self:
        """The record with a codebook that was learnt: rising float32 numbers. ``name``: of the layer, for errors."""
        before: tuple[float, ...] | None = getattr(self, "codebook", None)
        if before is None:
            raise SelectionError(f"layer {name!r} has no codebook that could be learnt")
        if len(codebook) != len(before):
            raise RecipeError(f"{name!r} has {len(before)} centroids, got {len(codebook)}")
        moved = any(new != 0 for old, new in zip(before, codebook, strict=True) if old == 0)
        if moved or any(low >= high for low, high in pairwise(codebook)):
            raise RecipeError(f"centroids of {name!r} must rise and keep zero in its place, got {codebook}")
        return type(self)(**{**vars(self), "codebook": codebook})


@dataclass(frozen=True, eq=False)
class State:
    """All that an assigner remembers, one record per weight name."""

    layers: Mapping[str, LayerState]

    def __getitem__(self, name: str) -> LayerState:
        """The record of one layer; an unknown name is a :class:`SelectionError`."""
        if name not in self.layers:
            raise SelectionError(f"the assigner's state has no layer {name!r}{did_you_mean(name, self.layers)}")
        return self.layers[name]

    def updated(self, layers: Mapping[str, LayerState]) -> State:
        """A new state in which ``layers`` replace or join the present records."""
        return State({**self.layers, **layers})

    def packed(self) -> dict[str, dict[str, Any]]:
        """The records as plain values and tensors."""
        return {name: layer.packed() for name, layer in self.layers.items()}

    def unpacked(self, values: Mapping[str, Mapping[str, Any]]) -> State:
        """The state of the same assigner that :meth:`packed` took apart; this one, its first, says of which types.

        Raises:
            DataError: records of other layers or of another assigner.
        """
        if self.layers.keys() != values.keys():
            raise DataError(f"a state of the layers {sorted(values)} does not fit the layers {sorted(self.layers)}")
        return State({name: self.layers[name].unpacked(values[name]) for name in values})


def with_steps(state: State, steps: Mapping[str, float]) -> State:
    """Hand learnt step sizes back: a state whose named layers use the given steps (rounded to float32).

    Where steps follow the rate, what was learnt is a factor on them, which stays when lambda changes.

    Raises:
        SelectionError: a name that the state lacks, or a layer without a step size.
        NonFiniteError: NaN or infinity.
        RecipeError: a step that is not positive.
    """
    changed = {}
    for name, step in steps.items():
        layer, value = state[name], _float32(name, "step size", step)
        if value <= 0:
            raise RecipeError(f"step size of {name!r} must be positive, got {step}")
        changed[name] = layer.with_step(name, value)
    return state.updated(changed)


def with_codebooks(state: State, codebooks: Mapping[str, Sequence[float]]) -> State:
    """Hand trained centroids back: a state whose named layers use them (rounded to float32).

    Args:
        codebooks: by layer, all values of its codebook, rising, such as ternary's ``(w_n, 0, w_p)``.

    Raises:
        SelectionError: a name that the state lacks, or a layer without a codebook.
        NonFiniteError: NaN or infinity.
        RecipeError: another number of values, values that do not rise, or a zero that is none any more.
    """
    changed = {}
    for name, codebook in codebooks.items():
        layer, values = state[name], tuple(_float32(name, "centroid", value) for value in codebook)
        changed[name] = layer.with_codebook(name, values)
    return state.updated(changed)


def _float32(name: str, what: str, value: float) -> float:
    """``value`` as the float32 number that a plan's values are computed with."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if not math.isfinite(rounded):
        raise NonFiniteError(f"{what} of {name!r} is {value}")
    return rounded
