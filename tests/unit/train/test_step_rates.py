"""Learning rates of trained steps are relative to the steps that are held, also when an assigner widens them."""

from __future__ import annotations

import copy

import pytest
from accelerate import Accelerator
from torch import nn

from fewbits.assign import ecq
from fewbits.attach import attach, held
from fewbits.data import DataSet
from fewbits.recipe.training import Finetuning
from fewbits.train import fit, plain
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.weights import select


@pytest.mark.parametrize(("step", "lam"), [("range", 1.0), ("rate", 0.05), ("rate", 1.0)])
def test_a_step_moves_by_a_share_of_its_size(trained: nn.Module, handwriting: DataSet, step: str, lam: float) -> None:
    model = copy.deepcopy(trained)
    settings = Finetuning(epochs=1, lr=1e-12, lr_step_size=0.01, learn=True, schedule="constant")

    def at(value: float, share: float):
        return ecq(4, value, zero_floor=0.5, step_rule=step)

    weights = select(model)
    plan, state = at(0.0, 0.0).update(weights, None, at(0.0, 0.0).init(weights))
    attach(model, plan, learn=True)
    optimizer = optimizer_of(finetuning_groups(model, settings), settings)
    qat = QATCallback(
        model, at, state, 0.0, scorer=None, every=1, settings=settings, accelerator=Accelerator(),
        on_round=lambda *_: None, rounds=1, optimizer=optimizer,
    )  # fmt: skip
    qat.take(lam)
    before = {name: float(holder.table.detach()) for name, holder in held(model).items()}
    widened = [before[name] / plan[name].step for name in before]
    assert (max(widened) > 1.5) == (step == "rate" and lam == 1.0)
    fit(model, [next(iter(handwriting.loader("train", 64)))], plain(), optimizer, settings, callback=qat)
    for name, holder in held(model).items():  # the first update of Adam is the learning rate
        assert abs(float(holder.table.detach()) / before[name] - 1) == pytest.approx(0.01, rel=1e-3)
