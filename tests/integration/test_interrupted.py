"""Ctrl-C in a real process, and the same command once more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = """\
schema: 2
network: {name: lenet-300-100, options: {inputs: 64}}
data: {name: digits, batch_size: 32}
pretrain: {epochs: 1, lr: 5.0e-3}
assign: {options: {zero_floor: 0.5}}
measure: {every: 2}
train: {epochs: 3, lr: 2.0e-3, distill: 0.5, learn: true}
rounds: 4
target: 10 KB
"""
PATIENCE = 120.0


def start(folder: Path, out: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewbits", "compress", "recipe.yaml", "--out", out],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long  # the golden run "resumed" does the same within one process
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupted_command_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "net.few").write_bytes(b"of an earlier run")
    (out / "float.safetensors").write_bytes(b"of an earlier run, too")

    process = start(tmp_path, "out")
    begin = time.monotonic()
    while not (out / "unfinished.state").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begin < PATIENCE
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert printed == ""
    assert [line for line in told.splitlines() if "interrupted" in line] == [
        f"interrupted; what was reached is kept in {Path('out') / 'unfinished.state'}, "
        "and the same command goes on from there"
    ]
    assert sorted(os.listdir(out)) == ["float.safetensors", "net.few", "unfinished.safetensors", "unfinished.state"]
    assert (out / "net.few").read_bytes() == b"of an earlier run"
    assert (out / "float.safetensors").read_bytes() == b"of an earlier run, too"

    process = start(tmp_path, "out")
    printed, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert "going on with the unfinished run in out" in told
    assert "training on" not in told, "the float network was trained again"
    assert not re.search(r"compress \d %", told), "the steps were done again"  # the bar begins at the kept 10 %
    assert "compress 100 %" in told
    assert sorted(os.listdir(out)) == ["float.safetensors", "net.few", "report.html", "report.json"]

    process = start(tmp_path, "straight")
    printed, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert "compress 10 %" in told
    for name in ("net.few", "float.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
