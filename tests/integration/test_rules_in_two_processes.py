"""A batch split over two processes teaches what it teaches in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from two_learners import trained

from fewbits.train.rules import RULES

pytestmark = pytest.mark.long

NOISY = ("difference-target-propagation", "direct-difference-target-propagation", "scff")
"""Their feedback learns from noise, of which each process draws its own; scff mixes samples of a process's batch."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("rules")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("two_learners.py")
    surroundings = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(script), str(folder)], env=surroundings, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", list(RULES))
def test_both_processes_have_the_same_weights(found: list[dict[str, Any]], name: str) -> None:
    for key, value in found[0][name].items():
        assert torch.equal(value, found[1][name][key])


@pytest.mark.parametrize("name", [name for name in RULES if name not in NOISY])
def test_one_process_with_batches_twice_as_large_learns_the_same(found: list[dict[str, Any]], name: str) -> None:
    moved = False
    start = trained("backprop", 64)  # another training, far enough to tell
    for key, value in trained(name, 16).items():
        torch.testing.assert_close(found[0][name][key], value, rtol=2e-4, atol=2e-6)
        moved |= not torch.allclose(start[key], value, rtol=1e-3)
    assert moved
