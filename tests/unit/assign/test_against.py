"""Differences to a base in place of weights: the same decisions, and the base on every entry."""

from __future__ import annotations

import pytest
import torch

from fewbits.assign import against, chain, ecq, global_magnitude, sample
from fewbits.errors import RecipeError
from fewbits.int8 import affine
from fewbits.plan import Clustered, Masked

DRAW = torch.Generator().manual_seed(0)
WEIGHTS = {"a": torch.randn(30, 20, generator=DRAW), "b": torch.randn(40, 6, generator=DRAW)}
BASES = {"a": torch.randn(30, 20, generator=DRAW)}


@pytest.mark.parametrize("own", [ecq(4, lam=0.1), global_magnitude(0.5), chain(global_magnitude(0.5), ecq(3, lam=0.1))])
def test_decisions_are_those_about_the_differences(own) -> None:
    relative = against(BASES, own)
    plan, state = own.update(WEIGHTS, None, own.init(WEIGHTS))
    found, then = relative.update(WEIGHTS, None, relative.init(WEIGHTS))
    for name, entry in plan.items():
        assert isinstance(entry, Clustered | Masked)
        assert torch.equal(found[name].own(), entry.values())
    assert torch.equal(found["a"].values(), BASES["a"] + plan["a"].values())
    assert found["b"].base is None
    assert {n: s.step for n, s in then.layers.items() if hasattr(s, "step")} == {
        n: s.step for n, s in state.layers.items() if hasattr(s, "step")
    }


def test_a_sample_of_rows_has_no_base() -> None:
    relative = against(BASES, ecq(4, lam=0.1))
    part = sample(WEIGHTS, relative.init(WEIGHTS), 100)
    plan, _ = relative.update(part.weights, None, part.state)
    assert plan["a"].base is None
    assert plan["a"].shape[0] < 30


def test_integers_with_scales_are_refused() -> None:
    relative = against(BASES, affine(8))
    with pytest.raises(RecipeError, match="a: integers with scales"):
        relative.update(WEIGHTS, None, relative.init(WEIGHTS))


def test_a_network_that_is_its_base_still_has_steps_to_move_by() -> None:
    zeros = {"a": torch.zeros(30, 20), "b": WEIGHTS["b"]}
    relative = against(BASES, ecq(4, lam=0.0))
    plan, state = relative.update(zeros, None, relative.init(zeros))
    assert not plan["a"].own().any()
    own = ecq(4, lam=0.0)
    assert state["a"].step == own.init({"a": BASES["a"] / 16})["a"].step
    moved = {"a": BASES["a"] / 20, "b": WEIGHTS["b"]}
    assert relative.update(moved, None, state)[0]["a"].own().any()
