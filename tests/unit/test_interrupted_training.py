"""Ctrl-C while the float network is trained, before anything is compressed, searched or swept."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_cli import fewbits
from torch import nn

import fewbits as fb
from fewbits.errors import DataError
from fewbits.job import _job as jobs
from fewbits.job import folder as outputs

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 64}
pretrain: {epochs: 2, lr: 5.0e-3}
prune: {sparsity: 0.5}
assign: {method: none}
train: {epochs: 0.2, lr: 1.0e-3}
rounds: 1
sweep: {trials: 1, over: {prune.sparsity: [0.5]}}
"""
EASY = ("--sparsity", 0.05, "--max-drop", 50)  # targets that are met
COMMANDS = {
    "compress": (("compress",), "net.few"),
    "sweep": (("sweep",), "trials/000/net.few"),
    "prune-search": (("prune-search", "--method", "erk", "--evaluations", 4, "--proxy", 200, *EASY), "search.json"),
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int | None, seen: list[int]) -> None:
    """Ctrl-C after step ``at``, if it is a number; ``seen`` collects the steps."""

    def after_update(self: object, done: int, total: int, loss: float) -> None:
        seen.append(done)
        if done == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs.Told, "after_update", after_update)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_command_goes_on_to_the_same_bytes(
    command: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "sweep":
        pytest.importorskip("optuna")
    (name, *options), result = COMMANDS[command]
    out, state = tmp_path / "out", tmp_path / "out" / outputs.TRAINING

    interrupt(monkeypatch, 20, first := [])
    ran = fewbits(name, recipe, "--out", out, *options)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == (
        f"interrupted; what was reached is kept in {state}, and the same command goes on from there"
    )
    assert os.listdir(out) == [outputs.TRAINING]
    assert first == list(range(1, 21))

    interrupt(monkeypatch, None, second := [])
    again = fewbits(name, recipe, "--out", out, *options)
    assert again.code == 0, again.err
    kept = second[0] - 1
    assert 10 < kept <= 20, "what was trained was not trained again"
    assert second == list(range(kept + 1, 35))
    assert re.search(rf"training on .* samples of digits, from step {kept} on", again.err)
    assert not state.exists()

    assert fewbits(name, recipe, "--out", tmp_path / "straight", *options).code == 0
    assert (out / result).read_bytes() == (tmp_path / "straight" / result).read_bytes()
    trained, straight = (load_file(place / outputs.FLOAT) for place in (out, tmp_path / "straight"))
    assert trained.keys() == straight.keys()
    assert all(torch.equal(tensor, straight[key]) for key, tensor in trained.items())


def test_another_budget_goes_on_and_another_network_is_refused(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, 20, [])
    assert fewbits("compress", recipe, "--out", out).code == 130
    ran = fewbits("compress", recipe, "--out", out, "--set", "seed=1")
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == (
        f"error: {out / outputs.TRAINING} belongs to another recipe, network or data; delete it to start anew"
    )
    interrupt(monkeypatch, None, seen := [])
    assert fewbits("compress", recipe, "--out", out, "--set", "prune.sparsity=0.8").code == 0
    assert seen[0] > 10


def test_the_state_of_another_training_stays(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that trains nothing removes nothing."""
    assert fewbits("compress", recipe, "--out", tmp_path / "first").code == 0
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, 20, [])
        assert fewbits("compress", recipe, "--out", out).code == 130
    weights = tmp_path / "first" / outputs.FLOAT
    ran = fewbits("compress", recipe, "--out", out, "--set", f"network.weights={weights}", "--set", "pretrain=null")
    assert ran.code == 0, ran.err
    assert (out / outputs.TRAINING).is_file()


def test_a_training_that_diverges_leaves_nothing_to_go_on_from(recipe: Path, tmp_path: Path) -> None:
    options = ("--set", "pretrain.optimizer=sgd", "--out", tmp_path / "out")
    ran = fewbits("compress", recipe, *options, "--set", "pretrain.lr=1e30")
    assert ran.code == 2
    assert "lower the learning rate" in ran.err
    assert fewbits("compress", recipe, *options, "--set", "pretrain.lr=0.01").code == 0, "as it was told"


def test_a_recipe_that_is_refused_makes_no_folder(recipe: Path, tmp_path: Path) -> None:
    ran = fewbits("compress", recipe, "--out", tmp_path / "new" / "deep", "--set", "data.augment=true")
    assert ran.code == 2
    assert not (tmp_path / "new").exists()


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    """Of the same class, with other weights."""
    state = tmp_path / "state"
    batches = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)] * 4

    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def stop(done: int, total: int, line: str) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    given = {"assign": {"method": "ecq", "bits": 4}, "train": {"epochs": 1}, "rounds": 4}
    with pytest.raises(KeyboardInterrupt):
        fb.compress(network(0), batches, recipe=given, state_file=state, progress=stop)
    assert state.exists()
    with pytest.raises(DataError, match="belongs to another recipe, network or data"):
        fb.compress(network(1), batches, recipe=given, state_file=state, progress=None)
    whole = fb.compress(network(0), batches, recipe=given, progress=None)
    assert fb.compress(network(0), batches, recipe=given, state_file=state, progress=None).data == whole.data
