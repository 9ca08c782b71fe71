"""The seam between "what matters" and "what each weight becomes".

An :class:`Assigner` is a pair of pure functions. It knows no network: it maps named float tensors (the
background weights) and, if it uses any, named scores of the same shapes to a :class:`~fewbits.plan.Plan`.
Everything it remembers (step sizes, trained centroids, mixed relevances) is an immutable
:class:`~fewbits.assign.State` with one record per layer, so assigners can be combined by splitting and joining
dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor

from fewbits.assign.state import State
from fewbits.errors import SelectionError, did_you_mean
from fewbits.plan import Entry, Plan

Weights = Mapping[str, Tensor]
Scores = Mapping[str, Tensor]


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
