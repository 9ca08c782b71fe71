"""Codebooks of any size that training moves: their order and their zero stay, and the assigner gets them back."""

from __future__ import annotations

import copy
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from torch import nn

from fewbits import codec
from fewbits.assign import CodebookState
from fewbits.assign._entropy import entropy_assigner
from fewbits.assign._rate import Rate
from fewbits.attach import ClusteredWeight, attach, held, plan_of
from fewbits.plan import Clustered
from fewbits.recipe.training import Finetuning
from fewbits.train import fit, plain
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.weights import select

POWERS = {3: (-0.5, 0.0, 0.5), 5: (-0.5, -0.25, 0.0, 0.25, 0.5), 7: (-0.5, -0.25, -0.125, 0.0, 0.125, 0.25, 0.5)}
finite = st.floats(-2, 2, width=32)


def holder_of(values: list[float], lowest: int) -> ClusteredWeight:
    return ClusteredWeight(Clustered(torch.zeros(2, dtype=torch.int16), 8, codebook=tuple(values), lowest=lowest))


@given(st.lists(finite, min_size=1, max_size=9), st.integers(-10, 3))
def test_values_rise_with_zero_in_its_place_and_what_was_in_order_stays(values: list[float], lowest: int) -> None:
    holder = holder_of(values, lowest)
    found = holder.ordered_codebook()
    assert holder.table.tolist() == list(found)
    assert all(low < high for low, high in pairwise(found))
    assert holder.ordered_codebook() == found
    zero = -lowest
    if 0 <= zero < len(values):
        assert found[zero] == 0
        wanted = [*values[:zero], 0.0, *values[zero + 1 :]]
    else:
        wanted = values
    if all(high - low > 1e-6 for low, high in pairwise(wanted)):
        assert list(found) == wanted


@given(finite, finite, finite)
def test_ternary_is_clamped_as_it_always_was(negative: float, zero: float, positive: float) -> None:
    table = torch.tensor([negative, zero, positive])
    least = torch.finfo(torch.float32).tiny
    table[0].clamp_(max=-least)
    table[1] = 0.0
    table[2].clamp_(min=least)
    assert holder_of([negative, zero, positive], -1).ordered_codebook() == tuple(table.tolist())


def test_nan_is_not_hidden() -> None:
    assert np.isnan(holder_of([float("nan"), 0.0, 1.0], -1).ordered_codebook()[0])


@pytest.mark.parametrize("size", POWERS)
def test_a_codebook_of_any_size_is_learnt_and_written(trained: nn.Module, handwriting, size: int) -> None:
    model = copy.deepcopy(trained)
    weights = select(model)
    start = POWERS[size]
    assigner = entropy_assigner(3, Rate(0.05), lambda name, weight: CodebookState(codebook=start))
    plan, state = assigner.update(weights, None, assigner.init(weights))
    assert all(entry.codebook == start and entry.lowest == -(size // 2) for entry in plan.clustered.values())
    attach(model, plan, learn=True)
    settings = Finetuning(epochs=1, lr=1e-2, learn=True, lr_step_size=0.05)
    qat = QATCallback(
        model, lambda lam, share: assigner, state, 0.05, scorer=None, every=1, settings=settings,
        accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
    )  # fmt: skip
    batches = [batch for _, batch in zip(range(6), handwriting.loader("train", 64), strict=False)]
    fit(model, batches, plain(), optimizer_of(finetuning_groups(model, settings), settings), settings, callback=qat)
    written = codec.decode(codec.encode(plan_of(model)), like=trained)
    for name, holder in held(model).items():
        book = qat.state[name].codebook
        assert book == holder.entry().codebook == written[name].codebook
        assert book != start
        assert len(book) == size
        assert book[size // 2] == 0
        assert list(book) == sorted(set(book))
