"""Without the compiled extension the same functions work, and the bytes are the same."""

import subprocess
import sys

import pytest
import torch

from fewbits.codec import backend, encode
from fewbits.codec.coder import chances_of
from fewbits.plan import Clustered, Dense, Plan

SCRIPT = """
import sys
sys.modules["fewbits.codec._coder"] = None
import torch
from fewbits.codec import backend, decode, encode
from fewbits.codec.coder import chances_of
from fewbits.plan import Clustered, Dense, Plan
levels = (torch.arange(1200, dtype=torch.int16).reshape(30, 8, 5) % 7 - 3)
plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(5.0))})
files = [encode(plan, profile=profile) for profile in ("small", "fast")]
assert all(decode(data, plan.tensors()).equals(plan) for data in files)
print(backend(), *(data.hex() for data in files), chances_of(levels.numpy()).tobytes().hex())
"""


def test_fallback_writes_the_same_file() -> None:
    if backend() != "c":
        pytest.skip("the extension is not built")
    levels = torch.arange(1200, dtype=torch.int16).reshape(30, 8, 5) % 7 - 3
    plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(5.0))})
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    files = [encode(plan, profile=profile).hex() for profile in ("small", "fast")]
    assert done.stdout.split() == ["python", *files, chances_of(levels.numpy()).tobytes().hex()]
    assert "warn" not in done.stderr.lower()
