"""Two real processes make one and the same file, each from its own half of the data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import network

import fewbits as fb
from fewbits.assign.selection import chosen, smallest
from fewbits.data import DataSet
from fewbits.task import accuracy

pytestmark = pytest.mark.long  # a minute of both cores
RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 64}
pretrain: {epochs: 1, lr: 5.0e-3}
assign: {options: {zero_floor: 0.5}}
train: {epochs: 1, lr: 2.0e-3}
rounds: 3
target: 14 KB
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "recipe.yaml").write_text(RECIPE)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    surroundings = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(script), str(folder)], env=surroundings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def said(out: Path) -> list[dict]:
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def test_there_were_two(said: list[dict]) -> None:
    assert [one["processes"] for one in said] == [2, 2]


@pytest.mark.parametrize("name", ["steered", "listed", "pruned", "narrowed", "integers", "own_loop", "gone_on"])
def test_both_end_with_the_same_bytes(out: Path, name: str) -> None:
    first, second = ((out / f"{name}-{rank}.few").read_bytes() for rank in range(2))
    assert first == second


def test_an_interruption_changes_nothing(out: Path, said: list[dict]) -> None:
    assert all(one["kept"] for one in said)
    assert (out / "integers-0.few").read_bytes() == (out / "gone_on-0.few").read_bytes()


def test_plain_training_ends_with_the_same_network_statistics_included(said: list[dict]) -> None:
    assert said[0]["trained"] == said[1]["trained"]


def test_each_trained_on_its_half_and_together_on_everything(said: list[dict]) -> None:
    first, second = (set(one["positions"]) for one in said)
    count = said[0]["samples"]
    assert first | second == set(range(count))
    assert len(first & second) <= 64, "batches are only doubled to even out the last round"
    assert [one["steps"] for one in said] == [34, 34], "34 batches in an epoch, two epochs, two processes"


def test_a_list_of_batches_is_dealt_out(said: list[dict]) -> None:
    """Five batches, two processes, two epochs: two steps an epoch, and nobody waits for a third."""
    assert [one["listed_steps"] for one in said] == [4, 4]


def test_the_file_decodes_to_the_accuracy_that_both_report(out: Path, said: list[dict], handwriting: DataSet) -> None:
    net = fb.load(out / "steered-0.few", like=network())
    found = accuracy(net, handwriting.loader("validation", 256))
    assert [one["after"] for one in said] == [found, found]
    assert found >= said[0]["before"] - 4.0 > 80
    assert [one["met"] for one in said] == [one["identical"] for one in said] == [True, True]


def test_a_threshold_over_halves_is_that_over_the_whole(said: list[dict]) -> None:
    weights = [torch.randn(n, generator=torch.Generator().manual_seed(n)).mul(8).round() for n in (1000, 37)]
    cuts = smallest(weights, 700, limits=[690, 30])
    for i, (weight, cut) in enumerate(zip(weights, cuts, strict=True)):
        assert chosen(weight, cut).int().tolist() == said[0]["pruned"][i] + said[1]["pruned"][i]


def test_one_of_them_speaks_and_writes(out: Path) -> None:
    assert sorted(os.listdir(out / "job")) == ["float.safetensors", "net.few", "report.html", "report.json"]
    assert (out / "stdout").read_text().count("written to ") == 1
    assert (out / "stderr").read_text().count("compress 100 %") == 1
    report = json.loads((out / "job" / "report.json").read_text())
    assert report["steps"] == 9, "17 batches, two processes"
    assert report["file_bytes"] == (out / "job" / "net.few").stat().st_size <= 14_000
