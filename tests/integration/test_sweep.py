"""A sweep by two real processes, of which one is killed: nothing finished is lost, and the front is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fewbits.job import sweep
from fewbits.recipe import load

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 64}
pretrain: {epochs: 2, lr: 5.0e-3}
assign: {options: {zero_floor: 0.5}}
measure: {name: magnitude}
train: {epochs: 1, lr: 2.0e-3}
rounds: 2
target: 5 KB
sweep:
  trials: 6
  batch: 3
  over:
    assign.bits: [2, 4]
    assign.lam: {from: 0.1, to: 1, log: true}
"""
PATIENCE = 300.0
COMMAND = [sys.executable, "-m", "fewbits", "sweep", "recipe.yaml", "--out", "two", "--workers", "2", "--threads", "1"]


def timeless(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every figure of every trial, but for the time it took."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def completed(folder: Path) -> int:
    """Trials that the journal says are complete."""
    journal = folder / "sweep.journal"
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    return sum(json.loads(line).get("state") == 1 for line in lines if line.endswith(b"}"))


def children(pid: int) -> list[int]:
    """Worker processes of a sweep."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


@pytest.mark.long  # three sweeps of processes
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers through /proc")
def test_a_killed_worker_loses_no_finished_trial_and_the_front_is_that_of_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    recipe = load(tmp_path / "recipe.yaml")
    alone = sweep(recipe, tmp_path / "one", threads=1)

    (tmp_path / "two").mkdir()  # the same float network, so that it is not trained twice
    (tmp_path / "two" / "float.safetensors").write_bytes((tmp_path / "one" / "float.safetensors").read_bytes())
    pipe = subprocess.PIPE
    process = subprocess.Popen(COMMAND, cwd=tmp_path, env=surroundings, stdout=pipe, stderr=pipe, text=True)
    begin = time.monotonic()
    while completed(tmp_path / "two") < 1:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begin < PATIENCE
        time.sleep(0.05)
    team = children(process.pid)
    assert len(team) == 2
    before = completed(tmp_path / "two")
    os.kill(team[0], signal.SIGKILL)
    printed, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert completed(tmp_path / "two") == 6 > before, "every trial once, none twice"
    found = json.loads((tmp_path / "two" / "sweep.json").read_text())["rows"]
    assert timeless(found) == timeless(alone.rows)
    assert len(alone.front) >= 2
    assert "* on the front" in printed

    lines: list[str] = []
    again = sweep(recipe, tmp_path / "two", threads=1, say=lines.append)
    assert timeless(again.rows) == timeless(found)
    assert completed(tmp_path / "two") == 6, "a finished sweep has nothing to do"
    assert "going on with a sweep of which 6 trials finished" in lines
