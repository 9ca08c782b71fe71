"""``fb.train`` on networks, tasks and arguments as strangers have them."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewbits as fb
from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.train.rules import Rule, rule_of

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (X[:, 0] > 0).long()


def net(outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def trained(model: nn.Module, data: Any = None, **options: Any) -> nn.Module:
    return fb.train(model, [(X, CLASSES)] if data is None else data, **{"epochs": 1, "progress": None} | options)


class Keywords(nn.Module):
    """Layers that are called by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self.b(input=torch.relu(self.norm(input=self.a(input=x))))


class Heads(nn.Module):
    """Two of them, in a dict; the one that the task does not read comes last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.a(x))
        return {"logits": self.b(hidden), "aux": self.c(hidden)}


# -- a readout in closed form ----------------------------------------------------------------------------


def test_whole_numbers_are_numbers_where_the_task_is_regression() -> None:
    y = (3 * X[:, :1]).round().long()
    found = trained(net(1), [(X, y)], rule="soft-hebb", task="regression", epochs=3)
    with torch.no_grad():
        off, spread = float((found(X) - y).square().mean()), float(y.double().var())
    assert off < 0.7 * spread


@pytest.mark.parametrize("task", ["binary", "multi-label"])
def test_a_task_that_least_squares_do_not_fit_is_refused_before_the_training(task: str) -> None:
    y = CLASSES[:, None] if task == "multi-label" else CLASSES
    heard: list[int] = []
    with pytest.raises(UnsupportedError, match=r"ridge readout .*readout: sgd"):
        trained(net(1), [(X, y)], rule="soft-hebb", task=task, progress=lambda done, *_: heard.append(done))
    assert not heard
    trained(net(1), [(X, y)], rule="soft-hebb", task=task, readout="sgd")


def test_a_readout_leaves_shared_and_frozen_weights_alone() -> None:
    tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    tied[2].weight = tied[0].weight
    with pytest.raises(UnsupportedError, match=r"2.weight.* is shared"):
        trained(tied, rule="soft-hebb", readout="ridge")
    frozen = net()
    frozen[2].requires_grad_(False)
    with pytest.raises(UnsupportedError, match=r"2.weight.* is frozen"):
        trained(frozen, rule="soft-hebb", readout="ridge")


# -- networks of any kind --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["hebbian", "soft-hebb", "scff", "mono-forward", "feedback-alignment"])
def test_layers_called_by_name_learn(rule: str) -> None:
    before, after = Keywords(), trained(Keywords(), rule=rule)
    assert not torch.equal(before.a.weight, after.a.weight)


@pytest.mark.parametrize("rule", ["scff", "mono-forward", "forward-forward", "predictive-coding"])
def test_a_batch_with_one_named_input_is_one_tensor(rule: str) -> None:
    named = trained(Keywords(), [{"x": X, "y": CLASSES}], rule=rule)
    pair = trained(Keywords(), [(X, CLASSES)], rule=rule)
    assert torch.equal(named.a.weight, pair.a.weight)


@pytest.mark.parametrize("rule", ["scff", "mono-forward", "forward-forward", "dual-propagation"])
def test_outputs_by_name_are_refused_by_rules_that_go_block_by_block(rule: str) -> None:
    with pytest.raises(UnsupportedError, match=r"needs one tensor|cut parts them"):
        trained(Heads(), rule=rule, readout="none")


@pytest.mark.parametrize("rule", ["hebbian", "soft-hebb"])
def test_a_head_that_the_loss_does_not_see_stays_as_it_was(rule: str) -> None:
    before, after = Heads(), trained(Heads(), rule=rule, readout="none")
    assert torch.equal(after.c.weight, before.c.weight)
    assert not torch.equal(after.b.weight, before.b.weight)


class Unread(nn.Module):
    """Its only head is not what the task reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 2), nn.Linear(2, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.a(x)
        return {"logits": hidden.detach(), "aux": self.c(hidden)}


@pytest.mark.parametrize("rule", ["hebbian", "soft-hebb"])
def test_a_last_layer_that_the_loss_does_not_see_is_refused(rule: str) -> None:
    with pytest.raises(UnsupportedError, match=r"the loss does not depend on c, the layer that is called last"):
        trained(Unread(), rule=rule, readout="none")


@pytest.mark.parametrize("rule", ["backprop", "forward-gradient"])
def test_a_network_outside_of_autograd_is_told(rule: str) -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() @ self.layer.weight.detach().numpy().T)

    with pytest.raises(UnsupportedError, match="no gradient of the loss reaches Outside"):
        trained(Outside(), rule=rule)


# -- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whiten", ["foo", -1, 2.5, 0, 4, True])
def test_an_impossible_patch_is_refused(whiten: Any) -> None:
    with pytest.raises(RecipeError, match=r"whitening takes patches of odd size"):
        trained(net(), whiten=whiten)


@pytest.mark.parametrize("change", [{"progress": 3}, {"state_file": 3}])
def test_arguments_of_other_kinds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(change))):
        trained(net(), **change)


def mine() -> Rule:
    return rule_of("mono-forward")


def other() -> Rule:
    def update(network: nn.Module, batch: Any, state: Any) -> Any:
        return rule_of("backprop").update(network, batch, state)

    return Rule(lambda network: None, update)


@pytest.mark.parametrize(
    "change",
    [{"rule": other()}, {"whiten": "whole"}, {"task": {"name": "classification", "options": {"metric": "top-2"}}}],
    ids=["rule", "whiten", "task"],
)
def test_an_interrupted_training_is_not_gone_on_with_as_another(tmp_path: Path, change: dict[str, Any]) -> None:
    if "task" in change:
        change = {"task": fb.Task(loss=lambda outputs, targets: outputs.square().mean())}

    def stop(done: int, *_: Any) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    common: dict[str, Any] = {"epochs": 20, "state_file": tmp_path / "state"}
    with pytest.raises(KeyboardInterrupt):
        trained(net(), **common, rule=mine(), progress=stop)
    assert (tmp_path / "state").is_file()
    with pytest.raises(DataError, match="delete it to start anew"):
        trained(net(), **common | {"rule": mine()} | change)
    trained(net(), **common, rule=mine())
    assert not (tmp_path / "state").exists()


def test_the_callers_random_numbers_go_on() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    wanted = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1)
    np.random.seed(1)
    model = net()
    torch.manual_seed(1)
    trained(model)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == wanted


def test_a_weight_matrix_is_no_normalisation_whatever_its_class_is_called() -> None:
    class NormedHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(2, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix.T

    with pytest.raises(UnsupportedError, match="NormedHead"):
        trained(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), NormedHead()), rule="feedback-alignment")


def test_what_stays_in_evaluation_mode_does_so_in_every_training() -> None:
    """As normalisation that is frozen while a network is fine-tuned; its statistics are what was given."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2))
    frozen, free = model[1], model[3]
    model.train()
    frozen.eval()
    data = [(X, CLASSES)] * 4
    found = trained(model, data)
    assert torch.equal(found[1].running_mean, torch.zeros(8))
    assert not torch.equal(found[3].running_mean, torch.zeros(8))
    assert not torch.equal(trained(found, data)[1].running_mean, torch.zeros(8)), "what comes back may train as a whole"
    recipe = {
        "assign": {"method": "ecq", "lam": 0.02},
        "train": {"epochs": 1},
        "merge_normalisation": False,
        "rounds": 1,
    }
    small = fb.compress(model, data, recipe=fb.Recipe.model_validate(recipe), evaluate=data, progress=None)
    found = small.into(copy.deepcopy(model))
    assert torch.equal(found[1].running_mean, torch.zeros(8))
    assert not torch.equal(found[3].running_mean, torch.zeros(8))
    assert (frozen.training, free.training, model.training) == (False, True, True), "the network given is as it was"
    everything = fb.train(model.eval(), data, epochs=1, progress=None)
    assert not torch.equal(everything[1].running_mean, torch.zeros(8)), "a network in evaluation mode says nothing"
    assert all(not key.startswith("_fewbits") for module in model.modules() for key in vars(module))


def test_frozen_normalisation_of_a_loaded_network_keeps_its_numbers() -> None:
    """Files hold it as scale and shift; statistics are given back to what trains alone."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    small = fb.compress(trained(model), [(X, CLASSES)] * 2, steps=2, progress=None)
    loaded = fb.load(small.data, like=copy.deepcopy(model)).train()
    loaded[1].requires_grad_(False).eval()
    found = trained(loaded, [(X, CLASSES)] * 2)
    for name, tensor in loaded[1].state_dict().items():
        assert torch.equal(tensor, found[1].state_dict()[name]), name
    loaded[1].requires_grad_().train()
    assert not torch.equal(trained(loaded, [(X, CLASSES)])[1].running_var, loaded[1].running_var)
