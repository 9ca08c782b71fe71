"""Signals from outside at random times of writing, each to a process of its own; see ``signals.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked")

SIZE = 100_000  # numbers in each of six tensors


def counts(folder: Path, writer: str, signal: str, times: int) -> dict[str, int]:
    """How often what came of a signal; nothing that is zero."""
    (folder / "files").mkdir()
    script = Path(__file__).with_name("signals.py")
    command = [sys.executable, str(script), writer, signal, str(times), str(folder / "files"), str(SIZE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("writer", "times"),
    [("state", 30), *(pytest.param(name, 500, marks=pytest.mark.long) for name in ("state", "npz", "bytes"))],
)
def test_ctrl_c_is_ctrl_c_and_leaves_one_whole_file(tmp_path: Path, writer: str, times: int) -> None:
    assert counts(tmp_path, writer, "SIGINT", times) == {"interrupted": times}


@pytest.mark.long  # of few kills, none may come within a write
def test_kill_leaves_a_whole_file_and_what_lies_beside_it_goes_with_the_next_write(tmp_path: Path) -> None:
    found = counts(tmp_path, "state", "SIGKILL", 200)
    assert found.pop("left beside") > 0, "no kill came within a write"
    assert found == {"SIGKILL": 200}


def test_a_write_that_is_not_atomic_is_seen(tmp_path: Path) -> None:
    assert counts(tmp_path, "torch.save to a file", "SIGINT", 15).get("not whole", 0) > 0
