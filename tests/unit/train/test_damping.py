"""Damping: how background weights approach their clusters, step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fewbits.assign import ecq
from fewbits.attach import attach, background, held, plan_of
from fewbits.data import DataSet
from fewbits.errors import RecipeError
from fewbits.pipeline import check
from fewbits.recipe import make
from fewbits.recipe.training import Finetuning
from fewbits.train import fit, plain
from fewbits.train.hold import QATCallback, finetuning_groups
from fewbits.train.loop import optimizer_of
from fewbits.weights import select


def trained_for(model: nn.Module, loader, settings: Finetuning, *, settled: bool = False) -> dict[str, Tensor]:
    """Background weights after a training of a copy."""
    model = copy.deepcopy(model)
    assigner = ecq(3, 0.1)
    weights = select(model)
    plan, state = assigner.update(weights, None, assigner.init(weights))
    attach(model, plan)
    qat = QATCallback(
        model, lambda lam, share: assigner, state, 0.1, scorer=None, every=1, settings=settings,
        accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
    )  # fmt: skip
    qat.settled = settled
    fit(model, loader, plain(), optimizer_of(finetuning_groups(model, settings), settings), settings, callback=qat)
    return {name: weight.detach().clone() for name, weight in background(model).items()}


def one_batch(handwriting: DataSet) -> list[tuple[Tensor, Tensor]]:
    return [next(iter(handwriting.loader("train", 64)))]


@pytest.mark.parametrize("damping", [0.25, 1.0])
def test_a_step_goes_a_share_of_the_way_to_the_clusters(
    trained: nn.Module, handwriting: DataSet, damping: float
) -> None:
    batches = one_batch(handwriting)
    settings = Finetuning(epochs=1, optimizer="sgd", lr=0.01)
    assigner = ecq(3, 0.1)
    plan, _ = assigner.update(select(trained), None, assigner.init(select(trained)))
    free = trained_for(trained, batches, settings)
    damped = trained_for(trained, batches, settings.model_copy(update={"damping": damping}))
    for name, weight in free.items():
        wanted = (1 - damping) * weight + damping * plan[name].values()
        torch.testing.assert_close(damped[name], wanted, rtol=1e-5, atol=1e-6)


def test_settled_weights_stay(trained: nn.Module, handwriting: DataSet) -> None:
    settings = Finetuning(epochs=2, optimizer="sgd", lr=0.01, damping=0.5)
    stayed = trained_for(trained, one_batch(handwriting), settings, settled=True)
    for name, weight in select(trained).items():
        assert torch.equal(stayed[name], weight)


def test_weights_change_clusters_less_often(trained: nn.Module, handwriting: DataSet) -> None:
    def changes(damping: float) -> int:
        model, count = copy.deepcopy(trained), 0
        weights = select(model)
        assigner = ecq(3, 0.1)
        plan, state = assigner.update(weights, None, assigner.init(weights))
        attach(model, plan)
        settings = Finetuning(epochs=2, lr=1e-3, damping=damping, settle=0.0)

        class Counting(QATCallback):
            def after_update(self, done: int, total: int, loss: float) -> None:
                nonlocal count
                before = {name: holder.levels.clone() for name, holder in held(model).items()}
                super().after_update(done, total, loss)
                count += sum(int((holder.levels != before[name]).sum()) for name, holder in held(model).items())

        qat = Counting(
            model, lambda lam, share: assigner, state, 0.1, scorer=None, every=1, settings=settings,
            accelerator=Accelerator(), on_round=lambda *_: None, rounds=1,
        )  # fmt: skip
        loader = handwriting.loader("train", 32, shuffle=True)
        fit(model, loader, plain(), optimizer_of(finetuning_groups(model, settings), settings), settings,
            callback=qat)  # fmt: skip
        assert plan_of(model).clustered
        return count

    assert changes(0.05) < 0.8 * changes(0.0)


def test_damping_and_regrowth_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="none would regrow"):
        check(make({"prune": {"sparsity": 0.5, "regrow": True}, "train": {"damping": 0.01}}))


@pytest.mark.parametrize("method", ["none", "int8"])
def test_damping_needs_clusters(method: str) -> None:
    with pytest.raises(RecipeError, match="to their clusters"):
        check(make({"assign": {"method": method}, "prune": {"sparsity": 0.5}, "train": {"damping": 0.01}}))
