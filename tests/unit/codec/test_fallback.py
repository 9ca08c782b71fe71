"""Without the compiled extension the same functions work, and the bytes are the same."""

import os
import subprocess
import sys

import pytest
import torch

from fewbits import codec
from fewbits.codec import backend, coder, encode
from fewbits.codec.coder import chances_of
from fewbits.plan import Clustered, Dense, Plan

WITHOUT_C = """
import sys
sys.modules["fewbits.codec._coder"] = None
from fewbits.codec import backend
"""
SCRIPT = (
    WITHOUT_C
    + """
import torch
from fewbits.codec import decode, encode
from fewbits.codec.coder import chances_of
from fewbits.plan import Clustered, Dense, Plan
levels = (torch.arange(1200, dtype=torch.int16).reshape(30, 8, 5) % 7 - 3)
plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(5.0))})
files = [encode(plan, profile=profile) for profile in ("small", "fast")]
assert all(decode(data, plan.tensors()).equals(plan) for data in files)
print(backend(), *(data.hex() for data in files), chances_of(levels.numpy()).tobytes().hex())
"""
)


def run_without_c(script: str, required: str | None = None) -> subprocess.CompletedProcess[str]:
    """The script in a process that does not find the extension; ``required`` is the value of FEWBITS_REQUIRE_C."""
    environment = {name: value for name, value in os.environ.items() if name != "FEWBITS_REQUIRE_C"}
    if required is not None:
        environment["FEWBITS_REQUIRE_C"] = required
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)


def test_fallback_writes_the_same_file() -> None:
    if backend() != "c":
        pytest.skip("the extension is not built")
    levels = torch.arange(1200, dtype=torch.int16).reshape(30, 8, 5) % 7 - 3
    plan = Plan({"w": Clustered(levels, 4, step=0.5), "b": Dense(torch.arange(5.0))})
    done = run_without_c(SCRIPT)
    assert done.returncode == 0, done.stderr
    files = [encode(plan, profile=profile).hex() for profile in ("small", "fast")]
    assert done.stdout.split() == ["python", *files, chances_of(levels.numpy()).tobytes().hex()]
    assert "warn" not in done.stderr.lower()


def test_a_required_extension_that_is_missing_is_an_error() -> None:
    """Else a broken build of the extension would pass every test, with the slow coder."""
    done = run_without_c(WITHOUT_C, required="1")
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("fewbits.errors.MissingCoderError: FEWBITS_REQUIRE_C is set")
    assert "make install" in error


@pytest.mark.parametrize("required", ["", "0"])
def test_an_extension_that_is_not_required_may_be_missing(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("FEWBITS_REQUIRE_C", required)
    monkeypatch.setitem(sys.modules, "fewbits.codec._coder", None)
    monkeypatch.delattr(codec, "_coder", raising=False)  # where an import of a submodule looks first
    assert coder._load()[1] == "python"


def test_a_required_extension_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    if backend() != "c":
        pytest.skip("the extension is not built")
    monkeypatch.setenv("FEWBITS_REQUIRE_C", "1")
    assert coder._load()[1] == "c"
