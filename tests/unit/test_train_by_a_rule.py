"""``fb.train`` and ``fewbits train``: any rule from an untrained network to one that is compressed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_cli import fewbits
from torch import nn

import fewbits as fb
from fewbits.data import DataSet, load
from fewbits.errors import DataError, RecipeError, UnsupportedError
from fewbits.job import _job as jobs
from fewbits.job import folder as outputs
from fewbits.recipe import Pretraining, Training, make
from fewbits.task import accuracy
from fewbits.train import Rule, Whitened
from fewbits.train.learning import settled


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(192, 10)
    )


def trained(digits: DataSet, **given: Any) -> tuple[nn.Module, float]:
    loader = digits.loader("train", 64, shuffle=True)
    net = fb.train(network(), loader, **{"epochs": 1, "progress": None} | given)
    return net, accuracy(net, digits.loader("test", 256))


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ({"rule": "backprop", "lr": 1e-2}, 80),
        ({"rule": {"name": "mono-forward"}, "epochs": 2, "lr": 5e-3}, 85),
        ({"rule": "hebbian"}, 93),
        ({"rule": "hebbian", "readout": {"name": "sgd", "epochs": 2}}, 75),
        ({"rule": "hebbian", "readout": {"name": "sgd", "epochs": 8, "once": True, "dropout": 0.2}}, 85),
        ({"rule": "soft-hebb", "whiten": 3}, 85),
        ({"rule": "scff", "readout": "ridge"}, 85),
    ],
    ids=lambda v: v["rule"] if isinstance(v, dict) and isinstance(v["rule"], str) else "",
)
def test_a_network_learns_by_each_rule_and_is_not_changed(digits: DataSet, given: dict[str, Any], least: float) -> None:
    before = network()
    loader = digits.loader("train", 64, shuffle=True)
    net = fb.train(before, loader, **{"epochs": 1, "progress": None} | given)
    assert accuracy(net, digits.loader("test", 256)) > least
    assert not net.training
    assert isinstance(net, Whitened) == ("whiten" in given)
    for a, b in zip(before.parameters(), network().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_whitened_network_is_compressed_and_read_into_a_skeleton(digits: DataSet, tmp_path: Path) -> None:
    net, _ = trained(digits, rule="hebbian", whiten=3)
    loader = digits.loader("train", 64)
    recipe = {"assign": {"method": "ecq", "lam": 1e-4, "bits": 8}, "train": None}
    small = fb.compress(net, loader, recipe=recipe, progress=None)
    small.save(tmp_path / "net.few")
    read = fb.load(tmp_path / "net.few", like=Whitened(network(), (1, 8, 8), 3))
    assert "whitening.weight" not in small.plan.compressed
    torch.testing.assert_close(read.whitening.weight, net.whitening.weight, rtol=1e-3, atol=1e-3)
    assert accuracy(read, digits.loader("test", 256)) > 60


@pytest.mark.parametrize("more", [{}, {"once": True, "dropout": 0.5, "epochs": 2}], ids=["", "once"])
def test_an_interrupted_training_goes_on_in_its_rule_and_in_its_readout(
    digits: DataSet, tmp_path: Path, more: dict[str, Any]
) -> None:
    readout = {"name": "sgd", "epochs": 1} | more
    given = {"rule": "mono-forward", "readout": readout, "state_file": tmp_path / "state"}
    whole, _ = trained(digits, **given)
    assert not (tmp_path / "state").exists()
    for times in (1, 2):  # within the rule's part, then within the readout's
        seen: list[str] = []

        def stop(done: int, total: int, line: str, seen: list[str] = seen, times: int = times) -> None:
            seen.append(line)
            if len(seen) == 12 * times:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trained(digits, progress=stop, **given)
        assert (tmp_path / "state").exists()
        again, _ = trained(digits, **given)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_a_readout_of_kept_features_is_the_same_as_of_features_made_each_time(digits: DataSet) -> None:
    x, t = next(iter(digits.loader("train", 200)))
    given = {"rule": "backprop", "epochs": 1e-6, "lr": 1e-12}
    net = network()
    net[4].p = 0.0  # of the network's own dropout nothing is left in kept features
    plain, kept = (
        fb.train(net, [(x, t)], **given, readout={"name": "sgd", "epochs": 5} | more, progress=None)
        for more in ({}, {"once": True})
    )
    assert not torch.equal(plain[5].weight, net[5].weight)
    for a, b in zip(plain.state_dict().values(), kept.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        ({"name": "ridge", "once": True}, "once belongs to sgd"),
        ({"name": "sgd", "dropout": 0.5}, "dropout is of features that are kept: add once: true"),
        ({"name": "sgd", "batch_size": 5}, "batch_size is of features that are kept"),
    ],
)
def test_words_of_kept_features_without_them_are_refused(readout: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fb.train(network(), [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))], readout=readout)


def test_a_rule_of_ones_own_and_steps(digits: DataSet) -> None:
    calls = []

    def update(net: nn.Module, batch: Any, state: int) -> Any:
        calls.append(state)
        outputs, loss = batch.forward()
        batch.backward(loss)
        return outputs, loss, state + 1

    trained(digits, rule=Rule(lambda net: 0, update), steps=5)
    assert calls == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"rule": "softhebb"}, RecipeError, "no rule 'softhebb'; did you mean 'soft-hebb'"),
        ({"rule": {"name": "hebbian", "options": {"rat": 1}}}, RecipeError, "no option 'rat'; did you mean 'rate'"),
        ({"learning_rate": 1}, RecipeError, "unknown key 'pretrain.learning_rate'"),
        ({"readout": "lasso"}, RecipeError, "pretrain.readout.name"),
        ({"whiten": 4}, RecipeError, "patches of odd size within samples of shape"),
        ({"rule": "scff", "steps": 0}, RecipeError, "steps is a whole number"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    digits: DataSet, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trained(digits, **given)


def test_a_layer_that_a_rule_cannot_train_is_named() -> None:
    net = nn.Sequential(nn.LSTM(8, 4, batch_first=True))
    with pytest.raises(UnsupportedError, match=r"^0 \(LSTM, weight_ih_l0\)"):
        fb.train(net, [(torch.randn(2, 3, 8), torch.tensor([0, 1]))], rule="hebbian", readout="none")
    calls: list[str] = []
    odd, loader = network().append(nn.LogSoftmax(1)), [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))]
    with pytest.raises(UnsupportedError, match="last linear layer '5' gives something else"):
        fb.train(odd, loader, rule="scff", progress=lambda *told: calls.append(told[2]))
    assert not calls, "before the training"
    with pytest.raises(DataError, match="empty"):
        fb.train(network(), [], rule="hebbian", epochs=1)


def test_rules_with_steps_of_their_own_are_applied_as_they_are() -> None:
    assert settled(Training(rule="hebbian")).lr == 1.0
    assert settled(Training(rule="hebbian", lr=0.1, momentum=0.5)).lr == 0.1
    assert settled(Training(rule="hebbian", momentum=0.5)).momentum == 0.5
    assert settled(Training(rule="scff")) == Training(rule="scff")
    assert settled(Pretraining(rule="scff")).readout.name == "ridge"
    assert settled(Pretraining(rule="scff", readout="none")).readout.name == "none"
    assert settled(Pretraining()).readout.name == "none"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"rule": "hebb"}}, "train.rule: no rule 'hebb'; did you mean 'hebbian'"),
        ({"pretrain": {"rule": {"name": "scff", "options": {"theta": 1}}}}, "pretrain.rule: rule scff: no option"),
        ({"channels": {"macs": 0.5, "train": {"rule": "x"}}}, "channels.train.rule: no rule 'x'"),
        ({"train": {"rule": "hebbian"}, "assign": {"method": "int8"}}, "integers train by backprop"),
    ],
)
def test_a_recipe_is_checked_for_its_rules(digits: DataSet, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fb.compress(network(), digits.loader("train", 64), recipe=values)
    assert make(values)  # whose form is right


def test_a_loop_of_ones_own_is_its_own_rule() -> None:
    with pytest.raises(RecipeError, match=r"train\.rule"):
        fb.compressing(network(), {"train": {"rule": "hebbian"}, "assign": {"method": "ecq"}}, steps=3)


def test_a_rule_trains_a_pruned_network_under_its_plan(digits: DataSet) -> None:
    net, _ = trained(digits, epochs=3, lr=5e-3)
    training = {"rule": "mono-forward", "epochs": 2, "lr": 3e-3}
    recipe = {"prune": {"sparsity": 0.6}, "assign": {"method": "none"}, "train": training}
    test = digits.loader("test", 256)
    untrained = fb.compress(net, digits.loader("train", 64), recipe=recipe | {"train": None}, progress=None)
    small = fb.compress(net, digits.loader("train", 64, shuffle=True), recipe=recipe, progress=None)
    after = small.into(network())
    assert float((after[0].weight == 0).float().mean()) + float((after[5].weight == 0).float().mean()) > 0.6
    assert accuracy(after, test) > max(80, accuracy(untrained.into(network()), test))


RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}, whiten: whole}
data: {name: digits, batch_size: 64}
pretrain: {rule: {name: mono-forward, options: {seed: 1}}, epochs: 1}
assign: {method: ecq, lam: 0.001}
train: {epochs: 0.2, lr: 1.0e-3}
"""


def test_the_command_trains_and_goes_on_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, whole, out = tmp_path / "tiny.yaml", tmp_path / "whole", tmp_path / "out"
    recipe.write_text(RECIPE)
    ran = fewbits("train", recipe, "--out", whole, "--json", tmp_path / "said.json")
    assert ran.code == 0, ran.err
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["rule"] == "mono-forward"
    assert f"mono-forward: {said['accuracy']:.2f} % on the test data" in ran.out
    assert sorted(p.name for p in whole.iterdir()) == [outputs.FLOAT]

    tell = jobs.Told.after_update

    def stop(self: Any, done: int, total: int, loss: float) -> None:
        tell(self, done, total, loss)
        if done == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs.Told, "after_update", stop)
        ran = fewbits("train", recipe, "--out", out)
    assert ran.code == 130
    assert "the same command goes on from there" in ran.err
    assert (out / outputs.TRAINING).is_file()
    ran = fewbits("train", recipe, "--out", out)
    assert ran.code == 0
    assert "from step" in ran.err
    first, second = (load_file(folder / outputs.FLOAT) for folder in (whole, out))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (out / outputs.TRAINING).exists()

    ran = fewbits("compress", recipe, "--out", tmp_path / "small", "--set", f"network.weights={out / outputs.FLOAT}")
    assert ran.code == 0, ran.err


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    ran = fewbits("train", recipe, "--out", tmp_path / "a", "--set", "pretrain=null")
    assert (ran.code, "add a section pretrain" in ran.err) == (2, True)
    ran = fewbits("train", recipe, "--out", tmp_path / "a", "--set", "pretrain.rule=mono-foward")
    assert (ran.code, "did you mean 'mono-forward'" in ran.err) == (2, True)
    assert not (tmp_path / "a").exists()
