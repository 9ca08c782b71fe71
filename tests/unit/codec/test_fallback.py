"""Without the compiled extension the same functions work, and the bytes are the same."""

import subprocess
import sys

import pytest
import torch

from fewbits.codec import backend, encode
from fewbits.plan import Clustered, Dense, Plan

SCRIPT = """
import sys
sys.modules["fewbits.codec._coder"] = None
import torch
from fewbits.codec import backend, decode, encode
from fewbits.plan import Clustered, Dense, Plan
levels = (torch.arange(60, dtype=torch.int16).reshape(3, 4, 5) % 7 - 3)
plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(5.0))})
data = encode(plan)
assert decode(data, plan.tensors()).equals(plan)
print(backend(), data.hex())
"""


def test_fallback_writes_the_same_file() -> None:
    if backend() != "c":
        pytest.skip("the extension is not built")
    levels = torch.arange(60, dtype=torch.int16).reshape(3, 4, 5) % 7 - 3
    plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(5.0))})
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["python", encode(plan).hex()]
    assert "warn" not in done.stderr.lower()
