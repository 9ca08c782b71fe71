"""The seam between "what matters" and "what each weight becomes".

An :class:`Assigner` is a pair of pure functions. It knows no network: it maps named float tensors (the
background weights) and, if it uses any, named scores of the same shapes to a :class:`~fewbits.plan.Plan`.
Everything it remembers (step sizes, trained centroids, mixed relevances) is an immutable :class:`State`
with one record per layer, so assigners can be combined by splitting and joining dictionaries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fewbits.errors import NonFiniteError, RecipeError, SelectionError, did_you_mean
from fewbits.plan import Entry, Plan

Weights = Mapping[str, Tensor]
Scores = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class LayerState:
    """What an assigner remembers about one layer.

    Attributes:
        step: step size of the uniform grid (a float32 number), or ``None`` with a codebook.
        gain: with steps that follow the rate, the factor that training has put on them.
        held: with steps that follow the rate, the one of the last update; ``None`` where ``step`` is held.
        codebook: all centroids, rising, zero among them (ternary: ``(w_n, 0, w_p)``), or ``None`` with a grid.
        scores: float32 tensor of the weight's shape, the signed scores mixed over batches; ``None`` so far.
        lam: the layer's Lagrange multiplier lambda(l) of the last update, in squared weight units per bit.
        beta: exponent of the relevances in the last update; ``None`` where relevance had no say.
        sparsity_plain: share of zeros without relevance (plain ECQ), in 0..1.
        sparsity: share of zeros of the assignment, in 0..1.
        chances: with the coder's own rate: what it expected of the last levels it was asked about, see
            :func:`fewbits.assign.code.chances`; ``age`` is the number of updates since.
        mask: bool tensor of the weight's shape: where it is false, the weight is zero and stays so. ``None``
            where every weight may become anything.
        criterion: float32 tensor of the weight's shape: the scores of the last update that a pruner reads; ``None``
            before there were any, and for all others.
    """

    step: float | None = None
    gain: float = 1.0
    held: float | None = None
    codebook: tuple[float, ...] | None = None
    scores: Tensor | None = None
    lam: float = 0.0
    beta: float | None = None
    sparsity_plain: float | None = None
    sparsity: float | None = None
    chances: Tensor | None = None
    age: int = 0
    mask: Tensor | None = None
    criterion: Tensor | None = None


@dataclass(frozen=True, eq=False)
class State:
    """All that an assigner remembers, one :class:`LayerState` per weight name."""

    layers: Mapping[str, LayerState]

    def __getitem__(self, name: str) -> LayerState:
        """The record of one layer; an unknown name is a :class:`SelectionError`."""
        if name not in self.layers:
            raise SelectionError(f"the assigner's state has no layer {name!r}{did_you_mean(name, self.layers)}")
        return self.layers[name]

    def updated(self, layers: Mapping[str, LayerState]) -> State:
        """A new state in which ``layers`` replace or join the present records."""
        return State({**self.layers, **layers})


class Assigner(NamedTuple):
    """Two pure, deterministic functions without gradient; they never change their arguments.

    ``init(weights)`` makes the first state from the pre-trained weights. ``update(weights, scores, state)``
    returns the plan (one entry per weight it is responsible for, in the order of ``weights``) and the next
    state. ``scores`` may be ``None``; each score has its weight's shape, names without a weight are ignored.
    """

    init: Callable[[Weights], State]
    update: Callable[[Weights, Scores | None, State], tuple[Plan, State]]


def only(patterns: str | Iterable[str], assigner: Assigner, otherwise: Assigner | None = None) -> Assigner:
    """Use ``assigner`` for the weights whose name matches a pattern and ``otherwise`` for all others.

    Without ``otherwise`` the others are left out of the plan: they stay floating-point numbers.

    Args:
        patterns: one or more ``fnmatch`` patterns, case-sensitive (``"features.*.weight"``).

    Raises:
        SelectionError: from ``init`` and ``update``, for a pattern that matches no name.
    """
    wanted = (patterns,) if isinstance(patterns, str) else tuple(patterns)

    def split(weights: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        for pattern in wanted:
            if not any(fnmatchcase(name, pattern) for name in weights):
                raise SelectionError(f"pattern {pattern!r} matches no weight{did_you_mean(pattern, weights)}")
        chosen = {n: w for n, w in weights.items() if any(fnmatchcase(n, pattern) for pattern in wanted)}
        return chosen, {n: w for n, w in weights.items() if n not in chosen}

    def init(weights: Weights) -> State:
        chosen, others = split(weights)
        state = assigner.init(chosen)
        return state if otherwise is None else state.updated(otherwise.init(others).layers)

    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        chosen, others = split(weights)
        plan, state = assigner.update(chosen, scores, state)
        entries: dict[str, Entry] = dict(plan)
        if otherwise is not None:
            plan, state = otherwise.update(others, scores, state)
            entries |= plan
        return Plan({name: entries[name] for name in weights if name in entries}), state

    return Assigner(init, update)


def nothing() -> Assigner:
    """Leaves every weight a floating-point number."""
    return Assigner(lambda weights: State({}), lambda weights, scores, state: (Plan({}), state))


def with_steps(state: State, steps: Mapping[str, float]) -> State:
    """Hand learnt step sizes back: a state whose named layers use the given steps (rounded to float32).

    Where steps follow the rate, what was learnt is a factor on them, which stays when lambda changes.

    Raises:
        SelectionError: a name that the state lacks, or a layer that has a codebook instead of a grid.
        NonFiniteError: NaN or infinity.
        RecipeError: a step that is not positive.
    """
    changed = {}
    for name, step in steps.items():
        if state[name].step is None:
            raise SelectionError(f"layer {name!r} has a codebook, not a step size")
        value = _float32(name, "step size", step)
        if value <= 0:
            raise RecipeError(f"step size of {name!r} must be positive, got {step}")
        layer = state[name]
        if layer.held is None:
            changed[name] = replace(layer, step=value)
        else:
            changed[name] = replace(layer, gain=layer.gain * value / layer.held, held=value)
    return state.updated(changed)


def with_codebooks(state: State, codebooks: Mapping[str, Sequence[float]]) -> State:
    """Hand trained centroids back: a state whose named layers use them (rounded to float32).

    Args:
        codebooks: by layer, all values of its codebook, rising, such as ternary's ``(w_n, 0, w_p)``.

    Raises:
        SelectionError: a name that the state lacks, or a layer that has a grid instead of a codebook.
        NonFiniteError: NaN or infinity.
        RecipeError: another number of values, values that do not rise, or a zero that is none any more.
    """
    changed = {}
    for name, codebook in codebooks.items():
        before = state[name].codebook
        if before is None:
            raise SelectionError(f"layer {name!r} has a step size, not a codebook")
        values = tuple(_float32(name, "centroid", value) for value in codebook)
        if len(values) != len(before):
            raise RecipeError(f"{name!r} has {len(before)} centroids, got {len(values)}")
        if any(low >= high for low, high in pairwise(values)) or values[before.index(0.0)]:
            raise RecipeError(f"centroids of {name!r} must rise and keep zero in its place, got {values}")
        changed[name] = replace(state[name], codebook=values)
    return state.updated(changed)


def _float32(name: str, what: str, value: float) -> float:
    """``value`` as the float32 number that a plan's values are computed with."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if not math.isfinite(rounded):
        raise NonFiniteError(f"{what} of {name!r} is {value}")
    return rounded
