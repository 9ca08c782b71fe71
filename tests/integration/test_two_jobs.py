"""Two commands that are given one folder: one does its work, the other is told who is at it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fewbits import files

pytestmark = [pytest.mark.long, pytest.mark.skipif(files.fcntl is None, reason="folders are not locked here")]

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 64}
pretrain: {epochs: 1, lr: 1.0e-3}
assign: {method: ecq, bits: 4, lam: 0.3}
train: {epochs: 2, lr: 1.0e-3}
rounds: 4
"""
BUSY = r"error: out is in use by process \d+, since [-0-9: ]+ \(.*\); wait"
PATIENCE = 120.0


def start(folder: Path, *options: str, **surroundings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewbits", "compress", "recipe.yaml", "--out", "out", *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_of_two_commands_at_once_one_is_refused_and_the_others_files_are_its_own(folder: Path) -> None:
    first, second = (start(folder, "--set", f"seed={seed}") for seed in (1, 2))
    ends = [(process, process.communicate(timeout=PATIENCE)[1]) for process in (first, second)]
    assert sorted(process.returncode for process, _ in ends) == [0, 2], ends
    loser, told = next((process, told) for process, told in ends if process.returncode == 2)
    seed = 1 if loser is second else 2
    assert re.search(BUSY, told), told
    assert f'"seed": {seed},' in (folder / "out" / "report.json").read_text()
    assert not [name for name in os.listdir(folder / "out") if name.startswith(".")]


def test_every_process_of_a_launch_is_told(folder: Path) -> None:
    """Without a launcher that ends them: on another machine there is none that knows of the main one's end."""
    (folder / "out").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    with files.locked(folder / "out", "another job"):
        team = [start(folder, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(2)]
        ends = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in team]
    for told, code in ends:
        assert code == 2, told
        assert re.search(BUSY, told), told
        assert "Traceback" not in told
