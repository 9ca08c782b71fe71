"""A user's own assigner: its state is a dataclass of its own, and learns, packs and combines like any."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fewbits.assign import (
    Assigner,
    LayerState,
    Scores,
    State,
    Weights,
    chain,
    ecq,
    global_magnitude,
    only,
    with_codebooks,
    with_steps,
)
from fewbits.errors import DataError, SelectionError
from fewbits.plan import Clustered, Plan
from states import assert_same


@dataclass(frozen=True, eq=False, kw_only=True)
class PowersState(LayerState):
    codebook: tuple[float, ...]
    means: Tensor


def powers(octaves: int) -> Assigner:
    """Each weight goes to the nearest of zero and ``largest * 2**-k`` with either sign, k below ``octaves``."""

    def init(weights: Weights) -> State:
        def first(weight: Tensor) -> PowersState:
            sizes = [float(weight.abs().max()) * 2.0**-k for k in range(octaves)]
            return PowersState(codebook=(*(-s for s in sizes), 0.0, *reversed(sizes)), means=weight.mean())

        return State({name: first(weight) for name, weight in weights.items()})

    def update(weights: Weights, scores: Scores | None, state: State) -> tuple[Plan, State]:
        entries, layers = {}, {}
        for name, weight in weights.items():
            layer = state[name]
            assert isinstance(layer, PowersState)
            table = torch.tensor(layer.codebook)
            levels = (weight.unsqueeze(-1) - table).abs().argmin(-1) - octaves
            entries[name] = Clustered(levels.short(), 4, codebook=layer.codebook, lowest=-octaves)
            share = float((levels == 0).double().mean())
            layers[name] = replace(layer, means=weight.mean(), sparsity=share)
        return Plan(entries), state.updated(layers)

    return Assigner(init, update)


WEIGHTS = {"a": torch.randn(6, 7), "b": torch.randn(5, 4)}
ASSIGNERS = {
    "alone": powers(3),
    "chained": chain(global_magnitude(0.4), powers(3)),
    "split": only("a", powers(3), otherwise=ecq(3)),
}


@pytest.fixture(params=ASSIGNERS)
def assigner(request: pytest.FixtureRequest) -> Assigner:
    return ASSIGNERS[request.param]


def test_what_is_learnt_comes_back_as_the_next_codebook(assigner: Assigner) -> None:
    plan, state = assigner.update(WEIGHTS, None, assigner.init(WEIGHTS))
    before = plan.clustered["a"].codebook
    assert before is not None
    assert len(before) == 7
    moved = tuple(1.25 * value for value in before)
    state = with_codebooks(state, {"a": moved})
    after, _ = assigner.update(WEIGHTS, None, state)
    assert after.clustered["a"].codebook == pytest.approx(moved)
    with pytest.raises(SelectionError, match="'a' has no step size that could be learnt"):
        with_steps(state, {"a": 0.1})


def test_its_state_goes_through_a_checkpoint(assigner: Assigner) -> None:
    first = assigner.init(WEIGHTS)
    _, state = assigner.update(WEIGHTS, None, first)
    again = first.unpacked(state.packed())
    for name in WEIGHTS:
        assert_same(again[name], state[name])


def test_a_checkpoint_of_a_state_with_other_fields_is_refused() -> None:
    first = powers(2).init(WEIGHTS)
    packed = first.packed()
    del packed["b"]["means"]
    with pytest.raises(DataError, match=r"PowersState, which has .*'means'"):
        first.unpacked(packed)


def test_a_layer_that_learns_nothing_says_so() -> None:
    state = global_magnitude(0.5).init(WEIGHTS)
    with pytest.raises(SelectionError, match="'a' has no codebook that could be learnt"):
        with_codebooks(state, {"a": (-1.0, 0.0, 1.0)})
    with pytest.raises(SelectionError, match="'a' has no step size"):
        with_steps(state, {"a": 1.0})
